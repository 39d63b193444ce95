"""Draws docs/plots from the figures that the parts left: `python -m benchmarks.plots FOLDER` draws again.

The same figures give the same bytes, so that a plot changes in the history only when what it shows does.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.faults import FILE as FAULTS
from benchmarks.fetching import SPEED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#707a84"
"""Text and axes: as far from white as from the dark pages that people read on."""
OURS, THEIRS = "#2f81f7", "#9aa4ae"
SOURCES = ("#d2822b", "#a371f7", "#3fa652")
_SMOOTH_S = 0.5


def draw(figures: Path, plots: Path) -> list[Path]:
    """Draws what there are figures for in one folder into another, the figures beside; returns the plots."""
    drawn = []
    for name, drawing in ((SPEED, speed), (FAULTS, faults)):
        source = figures / name
        if source.exists():
            plots.mkdir(parents=True, exist_ok=True)
            text = source.read_text()
            target = (plots / name).with_suffix(".svg")
            target.write_bytes(drawing(json.loads(text)))
            (plots / name).write_text(text)
            drawn.append(target)
    return drawn


def rates(counts: list[int], step_s: float, over_s: float = _SMOOTH_S) -> list[float]:
    """Bytes a second at each sample of a running count, over the `over_s` around it."""
    half = max(1, round(over_s / step_s / 2))
    found = []
    for index in range(len(counts)):
        first, last = max(0, index - half), min(len(counts) - 1, index + half)
        found.append((counts[last] - counts[first]) / ((last - first) * step_s) if last > first else 0.0)
    return found


def speed(figures: dict[str, Any]) -> bytes:
    """GB/s by tool: a bar for the median, a line from the slowest round to the fastest."""
    bars = [
        (place, tool, sorted(part["size_bytes"] / wall / 1e9 for wall in walls))
        for place, part in figures["places"].items()
        for tool, walls in part["wall_s"].items()
    ]
    figure, axes = _figure(height=0.9 + 0.42 * (len(bars) + 0.7 * len(figures["places"])))
    top, labels, before = 0.0, [], ""
    for place, tool, gbps in bars:
        if place != before:
            top, before = top + 0.7, place
            axes.text(0, top - 0.45, place, weight="bold", va="center")
        middle = statistics.median(gbps)
        axes.barh(top + 0.3, middle, height=0.66, color=OURS if tool == "diachunk" else THEIRS)
        axes.hlines(top + 0.3, gbps[0], gbps[-1], color=INK, linewidth=1.4)
        axes.text(gbps[-1], top + 0.3, f"  {middle:.2f}", va="center")
        labels.append((top + 0.3, tool))
        top += 1
    axes.set_yticks([at for at, _ in labels], [tool for _, tool in labels])
    axes.set_ylim(top, 0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(0, max(gbps[-1] for _, _, gbps in bars) * 1.12)
    axes.set_xlabel("GB/s from one nginx on loopback, whole processes; only diachunk checks the bytes")
    return _svg(figure)


def faults(figures: dict[str, Any]) -> bytes:
    """Throughput over time of one fetch, in all and of each origin; what went wrong is shaded."""
    step_s, sources = figures["step_s"], figures["sources"]
    figure, axes = _figure(height=3.6)
    total = [sum(each) for each in zip(*sources.values(), strict=True)]
    seconds = [index * step_s for index in range(len(total))]
    megabytes = [each / 1e6 for each in rates(total, step_s)]
    axes.plot(seconds, megabytes, color=OURS, linewidth=2.2, label="in all")
    for (name, counts), color in zip(sources.items(), SOURCES, strict=True):
        axes.plot(
            seconds, [each / 1e6 for each in rates(counts, step_s)], color=color, linewidth=1.2, label=name
        )
    highest = max(megabytes) * 1.18
    for from_s, to_s, label in figures["events"]:
        color = SOURCES[list(sources).index(label.split()[0])]
        axes.axvspan(from_s, to_s, color=color, alpha=0.16, linewidth=0)
        axes.text((from_s + to_s) / 2, highest * 0.97, label, ha="center", va="top", color=color)
    axes.set_xlim(0, seconds[-1])
    axes.set_ylim(0, highest)
    axes.set_xlabel("seconds since the first byte")
    axes.set_ylabel("MB/s")
    axes.legend(ncols=4, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return _svg(figure)


def _figure(*, height: float) -> tuple[Figure, Axes]:
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, in the reader's own font; ids follow from what is drawn.
    matplotlib.rc("svg", hashsalt="diachunk", fonttype="none")
    matplotlib.rc("font", family="sans-serif", size=10)
    matplotlib.rc("text", color=INK)
    matplotlib.rc("axes", labelcolor=INK, edgecolor=INK)
    matplotlib.rc("axes.spines", top=False, right=False)
    matplotlib.rc("xtick", color=INK)
    matplotlib.rc("ytick", color=INK)
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(7.6, height), layout="constrained")


def _svg(figure: Figure) -> bytes:
    """Without a background, a date or a maker."""
    from io import BytesIO

    from matplotlib import pyplot

    out = BytesIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    lines = out.getvalue().decode("utf-8").splitlines()
    return ("\n".join(line.rstrip() for line in lines) + "\n").encode("utf-8")


if __name__ == "__main__":
    for path in draw(Path(sys.argv[1]), Path(sys.argv[1])):
        print(path)
