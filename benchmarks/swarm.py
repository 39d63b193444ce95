"""Sixteen machines of a lab, and one origin: real fetches in network namespaces, every cable of 100 Mbit/s.

Needs root and iproute2; where a lab cannot be had, the page says why. What runs is in tests/fixtures/lab*.py, the same
that the tests of tests/swarm use.
"""

from __future__ import annotations

import importlib.util
import signal
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from benchmarks import measure, swarm_rivals
from fixtures import lab, lab_lines, lab_scenarios
from fixtures.lab import Lab
from fixtures.lab_scenarios import Goods, Result

NODES = 16
SIZE_BYTES = 512_000_000
_LINE_SAMPLES = 3
Scenario = Callable[[Lab, Goods], Result]
OURS: dict[str, tuple[Scenario, str]] = {
    "diachunk, cold": (lab_scenarios.cold, "1.25, egress 1.10"),
    "diachunk, half of them killed half-way": (lab_scenarios.half_killed, "1.5"),
    "diachunk, origin killed at one full copy": (lab_scenarios.origin_killed, "all end"),
}


def swarm(folder: Path, rounds: int, size_mib: int) -> str:
    """The part `swarm`: each scenario once a round, at most three rounds."""
    head = f"### A swarm: {NODES} machines, {_size(size_mib) // 1_000_000} MB, every cable 100 Mbit/s each way\n\n"
    if why := lab.missing():
        return f"{head}Left out: {why}."
    rows = []
    for name, (scenario, target) in OURS.items():
        results = [_run(name, scenario, size_mib) for _ in range(min(rounds, 3))]
        rows.append([*_row(name, results), target])
    for name, rival in _rivals().items():
        rows.append([*_row(name, [_run(name, rival, size_mib)]), ""])
    titles = [
        "who",
        "slowest node, s",
        "in ideals",
        "origin's egress, in sizes",
        "CPU s of all nodes",
        "at most",
    ]
    ideal_s = lab_scenarios.ideal_s(_size(size_mib))
    return (
        f"{head}From a barrier after the imports until the last byte is verified; the ideal, one plain TCP flow on "
        f"such a cable, takes {ideal_s:.1f} s. Stores on tmpfs. All {NODES} machines and the switch share this one.\n\n"
        + measure.table(titles, rows)
    )


def lines(folder: Path, rounds: int, size_mib: int) -> str:
    """The part `swarm-lines`: an origin of 20 Mbit/s and three peers of 100."""
    head = "### One origin at 20 Mbit/s and three peers at 100\n\n"
    if why := lab.missing():
        return f"{head}Left out: {why}."
    size = _size(size_mib)
    shares, used, killed, unplugged = [], [], [], []
    for number in range(min(rounds, 3)):
        with lab_lines.lines(size) as here:
            before_bps = lab_lines.plain_bps(here)
            taken = lab_lines.together(here)
            shares.append(taken.bps(size) / before_bps)
        with lab_lines.lines(size) as here:
            used.append(lab_lines.one_appears(here).used_after_s)
        with lab_lines.lines(size) as here:
            killed.append(lab_lines.one_vanishes(here).outcome.wasted_bytes / 1e6)
        with lab_lines.lines(size) as here:
            unplugged.append(lab_lines.one_vanishes(here, silently=True).outcome.wasted_bytes / 1e6)
        print(
            f"  {number}: {shares[-1]:.3f}, {used[-1]:.2f} s, {killed[-1]:.1f}, {unplugged[-1]:.1f} MB",
            file=sys.stderr,
        )
    rows = [
        ["goodput, of four plain TCP flows on these cables", _spread(shares, "{:.1%}"), "at least 95%"],
        ["a peer that appears mid-way is used, once it answers, after", _spread(used, "{:.2f} s"), "3 s"],
        ["thrown away when a peer is killed", _spread(killed, "{:.1f} MB"), "what is in flight: 8.4 MB"],
        ["thrown away when a peer's cable is pulled", _spread(unplugged, "{:.1f} MB"), "the same"],
    ]
    return head + measure.table(["what", "median (smallest-largest)", "wanted"], rows)


def _rivals() -> dict[str, Scenario]:
    found: dict[str, Scenario] = {"curl, everybody from the origin": swarm_rivals.all_with_curl}
    if importlib.util.find_spec("libtorrent") is not None:
        found["libtorrent, the origin seeds"] = swarm_rivals.with_libtorrent
    return found


def _run(name: str, scenario: Scenario, size_mib: int) -> Result:
    """A scenario in a lab of its own, which goes away also when this is terminated."""
    size = _size(size_mib)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        with lab_scenarios.lab(NODES, size) as bed:
            result = scenario(bed, lab_scenarios.goods(bed.folder, size))
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"  {name}: {result}", file=sys.stderr, flush=True)
    return result


def _row(name: str, results: list[Result]) -> list[str]:
    failed = sum(len(each.errors) for each in results)
    return [
        name + (f" ({failed} failed)" if failed else ""),
        _spread([each.slowest_s for each in results], "{:.1f}"),
        f"**{statistics.median(each.slowdown for each in results):.2f}**",
        _spread([each.egress for each in results], "{:.2f}"),
        _spread([sum(one.cpu_s for one in each.outcomes) for each in results], "{:.0f}"),
    ]


def _spread(values: list[float], form: str) -> str:
    said = form.format(statistics.median(values))
    return said if len(values) == 1 else f"{said} ({form.format(min(values))}-{form.format(max(values))})"


def _size(size_mib: int) -> int:
    return min(SIZE_BYTES, size_mib * 1024 * 1024)
