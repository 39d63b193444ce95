"""Verifying what is here, beside b3sum and sha256sum."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import diachunk
from benchmarks import fetching, measure


def verifying(folder: Path, rounds: int, size_mib: int) -> str:
    """`verify` against b3sum and sha256sum on the same file, warm; start-up of diachunk told apart."""
    root, manifest = fetching.published(folder, size_mib * 1024 * 1024)
    home = folder / "verify-home"
    diachunk.fetch(manifest, origins=[str(root)], home=home)
    command = [*fetching.DIACHUNK, "verify", "--quiet"]
    file = str(root / "f.bin")
    rows = measure.race(
        [
            measure.Contender("diachunk verify", command, environment={"DIACHUNK_HOME": str(home)}),
            measure.Contender("b3sum", ["b3sum", f"--num-threads={os.cpu_count()}", file]),
            measure.Contender("sha256sum", ["sha256sum", file]),
            # What every run of the program pays before it does anything: the same verb, with nothing to verify.
            measure.Contender("start-up", command, environment={"DIACHUNK_HOME": str(folder / "empty")}),
        ],
        rounds,
        settle_s=0.2,
    )
    ours, b3sum, sha256sum, start = rows
    work = [max(run.wall_s - base.wall_s, 1e-3) for run, base in zip(ours.runs, start.runs, strict=True)]
    size = size_mib * 1024 * 1024
    lines = ["| program | s | GB/s |", "|---|---|---|"]
    for row in (ours, b3sum, sha256sum):
        lines.append(
            f"| {row.name} | {row.median_wall_s():.2f} | {size / row.median_wall_s() / measure.GB:.2f} |"
        )
    mean = statistics.median(work)
    name = f"diachunk verify, start-up ({start.median_wall_s():.2f} s) excluded"
    lines.append(f"| {name} | {mean:.2f} | {size / mean / measure.GB:.2f} |")

    def versus(row: measure.Row) -> str:
        ratios = [run.wall_s / ours_s for run, ours_s in zip(row.runs, work, strict=True)]
        return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f})"

    return (
        f"### Verify {size_mib} MiB, file in the page cache, all cores\n\n"
        + "\n".join(lines)
        + f"\n\nStart-up excluded, `verify` has {versus(b3sum)} of the speed of b3sum and {versus(sha256sum)} "
        "of that of sha256sum."
    )
