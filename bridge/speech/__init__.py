"""Text for the ear: a request's token stream cut into segments, without I/O.

`Segmenter` takes the tokens' deltas and returns `Segment`s; `SpeechOptions` says how.
Markup is lexed by `markup` into `spoken_text`, which `cuts` looks through with the
rules of `sentences`. ``docs/protocol.md``, section 6; ``docs/voice.md``.
"""

from __future__ import annotations

from bridge.speech.heard import spoken
from bridge.speech.options import SpeechOptions, speech_options
from bridge.speech.segmenter import Segment, Segmenter

__all__ = ["Segment", "Segmenter", "SpeechOptions", "speech_options", "spoken"]
