"""How well and how cheaply text is cut for speech (``docs/voice.md``)."""
