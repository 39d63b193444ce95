"""Fetching 2 GiB from one nginx on loopback, beside curl and aria2c."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from blake3 import blake3

import diachunk
from benchmarks import measure
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import ChunkList, Component, FileEntry, build, encode
from diachunk.testing.servers import Nginx

_BLOCK = 4 * 1024 * 1024
_SMALL = 64 * 1024
_FILES = 24
DIACHUNK = (sys.executable, "-m", "diachunk")
SPEED = "speed.json"


def make_file(path: Path, size: int, seed: str) -> None:
    """Random bytes, the same ones every time."""
    running = blake3(seed.encode())
    with open(path, "wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(running.digest(length=min(_BLOCK, size - start), seek=start))


def published(folder: Path, size: int) -> tuple[Path, Path]:
    """(directory to serve, manifest) of one file."""
    root = folder / "origin"
    if not root.exists():
        root.mkdir()
        make_file(root / "f.bin", size, "bench")
        diachunk.publish([root / "f.bin"], name="bench", out=folder / "bench.json", store=False)
    return root, folder / "bench.json"


def _race(folder: Path, target: Path, rounds: int, size_mib: int, *, flushed: bool) -> list[measure.Row]:
    root, manifest = published(folder, size_mib * 1024 * 1024)
    home, out = target / "home", target / "out.bin"

    def clean() -> None:
        shutil.rmtree(home, ignore_errors=True)
        out.unlink(missing_ok=True)
        os.sync()

    with Nginx(root) as server:
        url = f"{server.url}/f.bin"
        curl = ["curl", "-s", "-o", str(out), url]
        aria = [
            "aria2c",
            "-q",
            "-x4",
            "-s4",
            "--file-allocation=none",
            "-d",
            str(target),
            "-o",
            "out.bin",
            url,
        ]
        ours = [*DIACHUNK, "fetch", str(manifest), "--origin", server.url, "--quiet"]
        environment = {"DIACHUNK_HOME": str(home)}

        def maybe_flushed(command: list[str]) -> list[str]:
            return ["sh", "-c", '"$@" && exec sync -d "$0"', str(out), *command] if flushed else command

        contenders = [
            measure.Contender("diachunk", ours, clean, environment),
            measure.Contender("curl -o", maybe_flushed(curl), clean),
        ]
        if not flushed:
            contenders.append(measure.Contender("aria2c -x4", aria, clean))
        rows = measure.race(contenders, rounds)
        clean()
    return rows


def _table(rows: list[measure.Row], size_mib: int) -> str:
    lines = [
        "| program | checks the bytes | s | GB/s | CPU s | diachunk is ... times as fast |",
        "|---|---|---|---|---|---|",
    ]
    size = size_mib * 1024 * 1024
    for row in rows:
        wall = row.median_wall_s()
        versus = (
            ""
            if row is rows[0]
            else f"**{measure.ratio(rows[0], row):.2f}** ({measure.spread(rows[0], row)})"
        )
        checks = "every one" if row is rows[0] else "no"
        lines.append(
            f"| {row.name} | {checks} | {wall:.2f} | {size / wall / measure.GB:.2f} | {row.median_cpu_s():.2f} "
            f"| {versus} |"
        )
    return "\n".join(lines)


def in_memory(folder: Path, rounds: int, size_mib: int) -> str:
    target = folder / "target"
    target.mkdir(exist_ok=True)
    rows = _race(folder, target, rounds, size_mib, flushed=False)
    measure.keep(folder / SPEED, "onto tmpfs", rows, size_mib * 1024 * 1024)
    title = f"### Fetch {size_mib} MiB from one nginx on loopback, onto tmpfs (whole processes, start-up included)"
    return f"{title}\n\n{_table(rows, size_mib)}"


def on_disk(folder: Path, rounds: int, size_mib: int) -> str:
    with tempfile.TemporaryDirectory(prefix="diachunk-bench-", dir=Path.home()) as disk:
        rows = _race(folder, Path(disk), rounds, size_mib, flushed=True)
    measure.keep(folder / SPEED, "onto a disk, flushed", rows, size_mib * 1024 * 1024)
    title = "### The same onto a disk, both flushed (curl followed by `sync -d`)"
    return f"{title}\n\n{_table(rows, size_mib)}"


def memory(folder: Path, rounds: int, size_mib: int) -> str:
    """Peak memory of a fetch whose manifest lists 100 GB, of which the part that exists is transferred."""
    root, manifest_path = published(folder, size_mib * 1024 * 1024)
    real = diachunk.show(str(manifest_path), home=folder / "memory-home")[0]
    files = list(real.components[0].files)
    # What counts for memory is the number of chunks; small ones need no disk of 100 GB to try it on.
    chunks_left = 100 * measure.GB // CHUNK_BYTES
    for number in range(_FILES):
        digests = ((_SMALL, blake3(f"{number}/{n}".encode()).digest()) for n in range(chunks_left // _FILES))
        chunks = ChunkList.of(digests)
        digest = blake3(f"file {number}".encode()).digest()
        files.append(FileEntry(f"absent-{number:03}.bin", chunks.total_bytes, digest, chunks))
    manifest = build("bench-large", "main", [Component("", tuple(files))])
    large = folder / "large.json"
    large.write_bytes(encode(manifest))
    home = folder / "memory-home"
    shutil.rmtree(home, ignore_errors=True)
    with Nginx(root) as server:
        command = [*DIACHUNK, "fetch", str(large), "--origin", server.url, "--patience", "1", "--quiet"]
        wrapped = ["sh", "-c", '"$@"; [ $? = 5 ]', "sh", *command]
        environment = {"DIACHUNK_HOME": str(home)}
        peak = measure.run_once(measure.Contender("memory", wrapped, environment=environment)).peak_bytes
    shutil.rmtree(home, ignore_errors=True)
    return (
        f"### Peak memory\n\n`fetch` of a manifest with as many chunks as 100 GB have ({manifest.chunk_count:,}), "
        f"{size_mib} MiB of it there to be transferred: **{peak / 1e6:.0f} MB** resident at most."
    )
