"""`make bench`: every figure that the project claims, measured on this machine, written to docs/benchmarks.md.

    python -m benchmarks.run [--rounds N] [--size-mib N] [--only fetch,disk,...]

The page has two parts: what stands between the markers is written here; the rest is kept. The plots in docs/plots
are drawn from the figures beside them.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    checking,
    cost,
    faults,
    fetching,
    hub,
    load,
    measure,
    places,
    plots,
    profile,
    resuming,
    serving,
    sharing,
    size,
    swarm,
)

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: written by `make bench` -->", "<!-- end of measured -->"
PLOTS = PAGE.parent / "plots"
PARTS: dict[str, Callable[[Path, int, int], str]] = {
    "fetch": fetching.in_memory,
    "disk": fetching.on_disk,
    "cost": cost.cpu_a_gb,
    "profile": profile.of_a_chunk,
    "memory": fetching.memory,
    "size": size.of_a_terabyte,
    "resume": resuming.first_byte,
    "ls": resuming.listing,
    "verify": checking.verifying,
    "sharing": sharing.versions,
    "faults": faults.with_faults,
    "hub": hub.repository,
    "places": places.placing,
    "serving": serving.against_nginx,
    "serving-many": serving.to_many,
    "load": load.safetensors_on_cpu,
    "load-cast": load.cast_on_cpu,
    "load-pth": load.pickled_on_cpu,
    "load-fetch": load.while_fetching,
    "swarm": swarm.swarm,
    "swarm-lines": swarm.lines,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--keep-page", action="store_true", help="print the tables, leave the page alone")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := set(names) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="diachunk-bench-", dir=_fast_directory()) as folder:
        text = measured(Path(folder), names, arguments.rounds, arguments.size_mib)
        if not arguments.keep_page:
            plots.draw(Path(folder), PLOTS)
    print(text)
    if not arguments.keep_page:
        PAGE.write_text(filled(PAGE.read_text(), text))


def measured(folder: Path, names: Sequence[str], rounds: int, size_mib: int) -> str:
    """Runs the parts of these names; returns what the page says of them."""
    sections = [f"{datetime.date.today()}, {measure.machine()}; medians of {rounds} interleaved rounds."]
    for name in names:
        print(f"{name}:", file=sys.stderr)
        sections.append(PARTS[name](folder, rounds, size_mib))
    if (folder / fetching.SPEED).exists():
        sections.insert(1, "![GB/s by tool](plots/speed.svg)")
    return "\n\n".join(sections)


def filled(page: str, text: str) -> str:
    """The page with `text` between its markers, all else as it was."""
    head, rest = page.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


def _fast_directory() -> str | None:
    """Memory, where a directory of it exists: what is compared is the programs, not the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
