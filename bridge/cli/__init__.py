"""The command line, ``tokenbridge``: the only part that reads the environment.

``program`` has the commands' table and turns errors into one line and an exit code;
each command is a module of its name, imported when it is called.
"""

from bridge.cli.program import main

__all__ = ["main"]
