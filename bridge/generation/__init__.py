"""One job from claim to settlement.

- `course`: the story of a job, start to end; read this first
- `claim`: whose a delivered job is
- `takeover`: how it goes on, or why not
- `record`: what it writes: log, text, speech
- `exchange`: asking backends until there is an answer
- `interrupt`: what cuts a job off
- `voice`: segments for text-to-speech
- `session`: superseding older requests
- `orphan`: requests that lost job and log with their server
- `dead`: jobs that could not be served
"""
