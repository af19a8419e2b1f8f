"""CPU per token and latency over the number of streams, as a picture.

Needs matplotlib, which nothing else here does.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from benchmarks.contenders import BRIDGE, GO, OBVIOUS
from benchmarks.scenarios import SWEEP
from benchmarks.targets import Results, Spread, values

_LINES = {
    BRIDGE: ("bridge", "#0b6e4f", "o"),
    GO: ("Go peer", "#3d7ea6", "s"),
    OBVIOUS: ("obvious Python", "#c05746", "^"),
}
_PANELS = (
    ("cpu_us_per_token", "CPU of the process, µs per token"),
    ("latency_p50_ms", "write to callback, p50, ms"),
    ("latency_p99_ms", "write to callback, p99, ms"),
)


def draw(path: Path, results: Results) -> None:
    """Draw the sweep at 6,000 tokens/s to ``path`` (its suffix gives the format)."""
    # By name, so that the types hold whether or not it is installed.
    import_module("matplotlib").use("agg")
    plt = import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(12, 3.6))
    for axis, (name, title) in zip(axes, _PANELS, strict=True):
        for contender, (label, colour, marker) in _LINES.items():
            points = []
            for streams in SWEEP:
                scenario = "cpu" if streams == 300 else f"streams_{streams}"
                spread = Spread.of(values(results, scenario, contender, name))
                if spread is not None:
                    points.append((streams, spread))
            if points:
                axis.errorbar(
                    [streams for streams, _ in points],
                    [spread.median for _, spread in points],
                    yerr=[
                        [spread.median - spread.low for _, spread in points],
                        [spread.high - spread.median for _, spread in points],
                    ],
                    label=label,
                    color=colour,
                    marker=marker,
                    capsize=3,
                )
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("streams, 6,000 tokens/s in all")
        axis.set_xscale("log")
        axis.set_xticks(SWEEP, [f"{n:,}" for n in SWEEP])
        axis.minorticks_off()
        if name == "latency_p99_ms":
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
