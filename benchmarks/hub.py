"""Fetching a repository of the Hub whose chunks nobody knows yet, beside the Hub's own client and curl."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.fetching import DIACHUNK, make_file
from diachunk.testing.checkpoint import layout, total_bytes, write_safetensors
from diachunk.testing.hub import Hub

_SHARDS = 2
_DIA_BYTES = 6_444_642_304
"""Of `layout("dia_tf", scale=1)`."""


def repository(folder: Path, rounds: int, size_mib: int) -> str:
    """A repository of two safetensors shards and a plain file, from an emulated Hub that redirects to a second host.

    The Hub's client checks no digests; curl neither. `by manifest` is the same from the same hosts when the chunks
    are known: what drafting costs is the difference.
    """
    root = folder / "hub"
    root.mkdir(exist_ok=True)
    specs = layout("dia_tf", scale=size_mib * 1024**2 / _SHARDS / _DIA_BYTES)
    names = [f"model-{number + 1:05}-of-{_SHARDS:05}.safetensors" for number in range(_SHARDS)]
    for number, name in enumerate(names):
        write_safetensors(root / name, specs, seed=f"bench {number}")
    make_file(root / "extra.bin", 64 * 1024 * 1024, "extra")
    size = total_bytes(specs) * _SHARDS
    home, cache, out = folder / "hub-home", folder / "hub-cache", folder / "hub-out"

    def clean() -> None:
        for each in (home, cache, out):
            shutil.rmtree(each, ignore_errors=True)
        out.mkdir()

    with Hub() as hub:
        hub.add("bench/model", {path.name: path for path in sorted(root.iterdir())})
        hub_env = {"HF_ENDPOINT": hub.url, "DIACHUNK_HOME": str(home)}
        client_env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
        manifest = _manifest(folder, hub.url)
        urls = [f"{hub.url}/bench/model/resolve/main/{path.name}" for path in sorted(root.iterdir())]
        curl = ["curl", "-sL", "--fail", "--output-dir", str(out), "--remote-name-all", *urls]
        client = "from huggingface_hub import snapshot_download; snapshot_download('bench/model')"
        rows = measure.race(
            [
                measure.Contender(
                    "diachunk fetch hub:", [*DIACHUNK, "fetch", "hub:bench/model", "-q"], clean, hub_env
                ),
                measure.Contender(
                    "diachunk, by manifest", [*DIACHUNK, "fetch", str(manifest), "-q"], clean, hub_env
                ),
                measure.Contender("huggingface_hub", [sys.executable, "-c", client], clean, client_env),
                measure.Contender("curl", curl, clean),
            ],
            rounds,
        )
        clean()
    return _section(rows, size)


def _manifest(folder: Path, endpoint: str) -> Path:
    """The repository's manifest, as another machine would publish it."""
    path = folder / "hub.json"
    command = [*DIACHUNK, "publish", "hub:bench/model", "--out", str(path), "-q"]
    environment = {"HF_ENDPOINT": endpoint, "DIACHUNK_HOME": str(folder / "hub-publisher")}
    subprocess.run(["env", *(f"{key}={value}" for key, value in environment.items()), *command], check=True)
    shutil.rmtree(folder / "hub-publisher")
    return path


def _section(rows: list[measure.Row], size_bytes: int) -> str:
    checks = {
        "diachunk fetch hub:": "SHA-256, BLAKE3, and publishes",
        "diachunk, by manifest": "BLAKE3, each chunk",
        "huggingface_hub": "length",
        "curl": "no",
    }
    lines = [
        [
            row.name,
            checks[row.name],
            f"{row.median_wall_s():.2f}",
            f"{size_bytes / row.median_wall_s() / measure.GB:.2f}",
            f"{row.median_cpu_s():.2f}",
            ""
            if row is rows[0]
            else f"**{measure.ratio(rows[0], row):.2f}x** ({measure.spread(rows[0], row)})",
        ]
        for row in rows
    ]
    head = ["program", "checks the bytes", "s", "GB/s", "CPU s", "`diachunk fetch hub:` is ... times as fast"]
    title = f"### A repository of the Hub, {size_bytes / measure.GB:.1f} GB, chunks not known before"
    return f"{title}\n\n{measure.table(head, lines)}"
