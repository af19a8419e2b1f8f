"""What faults cost: silence after a fault, memory per request, the log per token.

``python -m benchmarks.reliability`` measures what ``docs/reliability.md`` promises.
"""
