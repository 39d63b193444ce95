"""`make bench`: every figure that the project claims, measured on this machine, written to docs/benchmarks.md.

    python -m benchmarks.run [--rounds N] [--size-mib N] [--only fetch,disk,...]

On the page each part stands between markers of its own, with the day and the machine. Only the parts that were run are
written anew; the others, and all that stands between them, are kept. The plots in docs/plots are drawn from the figures
beside them.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable
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
BEGIN, END = "<!-- measured: {name} -->", "<!-- end of {name} -->"
LAST = "<!-- parts that are new are put here -->"
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
    "load-cuda": load.onto_cuda,
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
    page = None if arguments.keep_page else PAGE
    with tempfile.TemporaryDirectory(prefix="diachunk-bench-", dir=_fast_directory()) as folder:
        for name in names:
            print(f"{name}:", file=sys.stderr)
            try:
                text = measured(Path(folder), name, arguments.rounds, arguments.size_mib)
            except measure.NotHereError as error:
                print(f"not measured, its part of the page left as it is: {error}", file=sys.stderr)
                continue
            print(text + "\n", flush=True)
            if page is not None:
                page.write_text(filled(page.read_text(), name, text))
        if page is not None:
            plots.draw(Path(folder), PLOTS)


def measured(folder: Path, name: str, rounds: int, size_mib: int) -> str:
    """Runs a part; returns what the page says of it.

    Raises:
        NotHereError: it cannot be run on this machine.
    """
    text = PARTS[name](folder, rounds, size_mib)
    return f"{text}\n\n{datetime.date.today()}, {measure.machine()}; {rounds} interleaved rounds."


def filled(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of a part, all else as it was."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    part = f"{begin}\n{text}\n{end}"
    if begin not in page:
        return page.replace(LAST, f"{part}\n\n{LAST}")
    head, rest = page.split(begin)
    return f"{head}{part}{rest.split(end)[1]}"


def _fast_directory() -> str | None:
    """Memory, where a directory of it exists: what is compared is the programs, not the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
