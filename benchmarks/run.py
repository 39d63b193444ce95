"""`make bench`: every figure that the project claims, measured on this machine, written to docs/benchmarks.md.

    python -m benchmarks.run [--rounds N] [--size-mib N] [--only fetch,disk,verify,memory,sharing]

The page has two parts: what stands between the markers is written here; the rest is kept.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import checking, fetching, measure, sharing

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: written by `make bench` -->", "<!-- end of measured -->"
PARTS: dict[str, Callable[[Path, int, int], str]] = {
    "fetch": fetching.in_memory,
    "disk": fetching.on_disk,
    "memory": fetching.memory,
    "verify": checking.verifying,
    "sharing": sharing.versions,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--keep-page", action="store_true", help="print the tables, leave the page alone")
    arguments = parser.parse_args()
    sections = [
        f"{datetime.date.today()}, {measure.machine()}; medians of {arguments.rounds} interleaved rounds."
    ]
    with tempfile.TemporaryDirectory(prefix="diachunk-bench-", dir=_fast_directory()) as folder:
        for name in arguments.only.split(","):
            print(f"{name}:", file=sys.stderr)
            sections.append(PARTS[name](Path(folder), arguments.rounds, arguments.size_mib))
    text = "\n\n".join(sections)
    print(text)
    if not arguments.keep_page:
        page = PAGE.read_text()
        head, rest = page.split(BEGIN)
        _, tail = rest.split(END)
        PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")


def _fast_directory() -> str | None:
    """Memory, where a directory of it exists: what is compared is the programs, not the disk."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


if __name__ == "__main__":
    main()
