"""What a token costs: the bridge and its peers on one rig, ``python -m benchmarks``.

::

    load ──jobs──▶ nats-server ──▶ contender ──HTTP──▶ backend
      ▲                │  ▲            │                  │ one chunk per write,
      └────callback────┘  └──deltas────┘◀──────SSE────────┘ each with its send time

`backend` and every contender are processes of their own; the load runs in the
runner's. ``docs/performance.md`` tells what is measured, how, and what came out.
"""
