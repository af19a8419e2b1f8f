"""When what happened in a conversation: as JSON, and as a picture."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from examples.voice.audio import Clip

WIDTH, LEFT, RIGHT = 1000, 84, 20
#: Who or what, from the top; tokens are ticks, segments the longer ones.
ROWS = {"caller": 20, "bridge": 70, "assistant": 120}
MARKS_TOP = 170
COLOURS = {"caller": "#8a6d3b", "assistant": "#2b6cb0"}


@dataclass
class Timeline:
    """Moments and sounds on one clock that starts with the conversation."""

    begun: float = field(default_factory=time.monotonic)
    moments: list[dict[str, Any]] = field(default_factory=list)

    def begin(self) -> None:
        """The conversation begins now."""
        self.begun = time.monotonic()

    def clock(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def mark(self, event: str, turn: int, **more: Any) -> None:
        """Something happens now."""
        at_ms = round(self.clock() * 1000, 1)
        self.moments.append({"at_ms": at_ms, "event": event, "turn": turn, **more})

    def of(self, event: str, turn: int) -> float | None:
        """When something happened first in a turn, in milliseconds."""
        return next(
            (
                moment["at_ms"]
                for moment in self.moments
                if (moment["event"], moment["turn"]) == (event, turn)
            ),
            None,
        )

    def write_json(self, path: Path, clips: list[Clip]) -> None:
        """All of it, for programs."""
        sounds = [
            {
                "speaker": clip.speaker,
                "from_ms": round(clip.at * 1000, 1),
                "to_ms": round(clip.end * 1000, 1),
                "text": clip.label,
            }
            for clip in clips
        ]
        shown = {"moments": self.moments, "sounds": sounds}
        path.write_text(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")

    def write_svg(self, path: Path, clips: list[Clip]) -> None:
        """A picture: who speaks when, and the moments between."""
        end_ms = max(
            [clip.end * 1000 for clip in clips]
            + [moment["at_ms"] for moment in self.moments]
        )
        path.write_text(_Picture(end_ms).draw(self.moments, clips), encoding="utf-8")


class _Picture:
    def __init__(self, end_ms: float) -> None:
        self._end_ms = end_ms
        self._parts: list[str] = []

    def _x(self, at_ms: float) -> float:
        return round(LEFT + at_ms / self._end_ms * (WIDTH - LEFT - RIGHT), 1)

    def _text(self, x: float, y: float, text: str, more: str = "") -> None:
        self._parts.append(f'<text x="{x}" y="{y}" {more}>{escape(text)}</text>')

    def _line(self, x1: float, y1: float, x2: float, y2: float, more: str) -> None:
        self._parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {more}/>')

    def draw(self, moments: list[dict[str, Any]], clips: list[Clip]) -> str:
        for name, y in ROWS.items():
            self._text(8, y + 16, name)
        for clip in clips:
            self._sound(clip)
        self._tokens(moments)
        marks = [m for m in moments if m["event"] not in ("token", "segment")]
        rows: Counter[int] = Counter()
        for moment in marks:
            self._mark(moment, MARKS_TOP + 17 * rows[moment["turn"]])
            rows[moment["turn"]] += 1
        bottom = MARKS_TOP + 17 * max(rows.values(), default=0) + 10
        self._axis(bottom)
        height = bottom + 30
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="12">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )

    def _sound(self, clip: Clip) -> None:
        x, end = self._x(clip.at * 1000), self._x(clip.end * 1000)
        y, width = ROWS[clip.speaker], round(max(1.0, end - x), 1)
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="24" rx="3" '
            f'fill="{COLOURS[clip.speaker]}" fill-opacity="0.75">'
            f"<title>{escape(clip.label)}</title></rect>"
        )
        letters = int(width / 6.5)
        if letters > 3:
            label = clip.label
            shown = label if len(label) <= letters else label[: letters - 1] + "…"
            self._text(x + 4, y + 16, shown, 'fill="white"')

    def _tokens(self, moments: list[dict[str, Any]]) -> None:
        """Each token a tick, each segment a longer one."""
        y = ROWS["bridge"]
        for moment in moments:
            x = self._x(moment["at_ms"])
            if moment["event"] == "token":
                self._line(x, y + 8, x, y + 18, 'stroke="#999"')
            elif moment["event"] == "segment":
                self._line(x, y, x, y + 24, 'stroke="#2f855a" stroke-width="2.5"')

    def _mark(self, moment: dict[str, Any], y: float) -> None:
        x = self._x(moment["at_ms"])
        stop = moment["event"] in ("cancel", "cancelled", "silence")
        colour = "#c53030" if stop else "#444"
        self._line(
            x, 10, x, y - 4, f'stroke="{colour}" stroke-dasharray="2 3" opacity="0.6"'
        )
        label = f"{moment['event'].replace('_', ' ')}, {moment['at_ms']:,.0f} ms"
        anchor = "end" if x > WIDTH - 180 else "start"
        shift = -4 if anchor == "end" else 4
        self._text(x + shift, y, label, f'fill="{colour}" text-anchor="{anchor}"')

    def _axis(self, y: float) -> None:
        self._line(LEFT, y, WIDTH - RIGHT, y, 'stroke="#444"')
        for second in range(int(self._end_ms / 1000) + 1):
            x = self._x(second * 1000)
            self._line(x, y, x, y + 5, 'stroke="#444"')
            self._text(x, y + 18, f"{second} s", 'text-anchor="middle"')
