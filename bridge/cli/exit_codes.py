"""What the commands tell the shell; ``docs/cli.md`` lists them."""

COMPLETED = 0
FAILED = 1
WRONG_USAGE = 2
CANCELLED = 3
#: As shells report a program that SIGINT ended: 128 + 2.
INTERRUPTED = 130
#: As they report one that SIGPIPE ended: 128 + 13.
READER_GONE = 141
