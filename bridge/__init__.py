"""tokenbridge: LLM token streams on NATS."""
