"""One job from claim to settlement.

- `course`: the story of a job, start to end; read this first
- `claim`: whose a delivered job is
- `takeover`: how it goes on, or why not
- `serving`: a claimed job, from its first event to its last
- `record`: what it writes: log, text, speech
- `exchange`: asking backends until there is an answer
- `interrupt`: what cuts a job off
- `ending`: its last event, also where an outage took the log
- `voice`: segments for text-to-speech
- `session`, `superseding`: cancelling the older requests of a session
- `orphan`: requests that lost job and log with their server
- `refusal`: jobs that are not valid
- `dead`: jobs that could not be served
- `case`, `ownership`, `account`, `surroundings`: what these share of one job: itself,
  its lease, its figures, and what the worker gives it
- `running`, `controls`: a worker's jobs: kept claimed, and cancelled
"""
