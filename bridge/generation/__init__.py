"""One job from claim to settlement.

- `course`: the story of a job, start to end; read this first
- `claim`: whose a delivered job is
- `exchange`: asking backends until there is an answer
- `interrupt`: what cuts a job off
- `dead`: why a job could not be served, as headers
"""
