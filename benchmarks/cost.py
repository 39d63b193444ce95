"""CPU seconds a GB on the client's side: diachunk beside curl, and the hashing that curl does not do."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from benchmarks import fetching, measure, size
from diachunk.testing.servers import Nginx


def ratio(ours_s: float, hashing_s: float, curl_s: float) -> float:
    """What is left of our CPU time without BLAKE3, in units of curl's."""
    return (ours_s - hashing_s) / curl_s


def cpu_a_gb(folder: Path, rounds: int, size_mib: int) -> str:
    """The part `cost`: user and system time of the client's process, from the kernel's own accounting."""
    size_bytes = size_mib * 1024 * 1024
    root, manifest = fetching.published(folder, size_bytes)
    home, out = folder / "cost-home", folder / "cost-out"

    def clean() -> None:
        shutil.rmtree(home, ignore_errors=True)
        out.unlink(missing_ok=True)

    with Nginx(root) as server:
        ours = [*fetching.DIACHUNK, "fetch", str(manifest), "--origin", server.url, "--quiet"]
        ours_row, curl_row, start_row = measure.race(
            [
                measure.Contender("diachunk", ours, clean, {"DIACHUNK_HOME": str(home)}),
                measure.Contender("curl", ["curl", "-s", "-o", str(out), f"{server.url}/f.bin"], clean),
                measure.Contender("start-up", [*fetching.DIACHUNK, "fetch", "--help"]),
            ],
            rounds,
        )
        clean()
    hashing = statistics.median(size.hashing_s(size_bytes, sample=256) for _ in range(rounds))
    ratios = [
        ratio(mine.cpu_s, hashing, curls.cpu_s)
        for mine, curls in zip(ours_row.runs, curl_row.runs, strict=True)
    ]
    gigabytes = size_bytes / measure.GB
    lines = [
        ["diachunk fetch", f"{ours_row.median_cpu_s() / gigabytes:.2f}"],
        ["of that, BLAKE3 (a bare loop over other memory of that size)", f"{hashing / gigabytes:.2f}"],
        [
            "of that, the interpreter's start and the command line",
            f"{start_row.median_cpu_s() / gigabytes:.2f}",
        ],
        ["curl -o", f"{curl_row.median_cpu_s() / gigabytes:.2f}"],
    ]
    return (
        f"### CPU of the client, fetching {size_mib} MiB from nginx onto tmpfs\n\n"
        + measure.table(["what", "CPU seconds a GB"], lines)
        + f"\n\nWithout BLAKE3, diachunk takes **{statistics.median(ratios):.2f}** "
        f"({min(ratios):.2f}-{max(ratios):.2f}) times curl's CPU time, start-up included (target 1.3)."
    )
