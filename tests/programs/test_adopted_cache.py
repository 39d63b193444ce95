"""Caches that the real clients wrote: used where they lie, checked offline, mended by replacing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from diachunk.testing.faults import StallAfter
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from fixtures.programs import (
    HUB_2,
    HUBS,
    Program,
    clean_environment,
    diachunk,
    python_of,
    run,
    run_command,
    said,
)
from fixtures.tiny_dia import MODEL, VOCODER, TinyDia

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]
every_hub = pytest.mark.parametrize("program", HUBS, ids=lambda program: program.name)

DOWNLOAD = f"""
import huggingface_hub as hub
hub.snapshot_download("{MODEL}")
hub.snapshot_download("{VOCODER}")
"""
WEIGHTS = "model.safetensors"


def blobs_of(home: Path, repository: str) -> Path:
    return home / "huggingface" / "hub" / f"models--{repository.replace('/', '--')}" / "blobs"


def weights_of(home: Path, hub: Hub) -> Path:
    """The vocoder's, in the client's cache."""
    return blobs_of(home, VOCODER) / hub.file(VOCODER, WEIGHTS).etag


def state(directory: Path) -> dict[str, tuple[int, ...]]:
    """Everything about every name that a change would change."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(directory))] = (
            status.st_ino,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
        )
    return found


def flip(path: Path, at_byte: int = 100_000) -> None:
    with path.open("r+b") as file:
        file.seek(at_byte)
        byte = file.read(1)
        file.seek(at_byte)
        file.write(bytes([byte[0] ^ 1]))


@every_hub
def test_what_a_client_downloaded_is_not_fetched_again(
    program: Program, hub: Hub, tiny_dia: TinyDia, tmp_path: Path
) -> None:
    said(run(program, DOWNLOAD, tmp_path, HF_ENDPOINT=hub.url))
    before, sent = state(tmp_path / "huggingface"), hub.bytes_sent()
    snapshot = Path(said(diachunk(tmp_path, "fetch", "dia-1.6b", HF_ENDPOINT=hub.url)))
    assert hub.bytes_sent() == sent
    assert (snapshot / "vocoder" / WEIGHTS).read_bytes() == (tiny_dia.vocoder / WEIGHTS).read_bytes()
    assert state(tmp_path / "huggingface") == before


@every_hub
def test_what_a_killed_client_left_is_used_for_what_it_has(
    program: Program, hub: Hub, tmp_path: Path
) -> None:
    data = b"".join(number.to_bytes(4, "little") for number in range(6_000_000))
    hub.add("org/large", {"weights.pth": data})
    hub.fail(Part.BYTES, StallAfter(11_000_000))  # it writes in pieces of 10 MiB
    code = "import huggingface_hub as hub; hub.snapshot_download('org/large')"
    with subprocess.Popen(
        [python_of(program), "-c", code], env=clean_environment(tmp_path) | {"HF_ENDPOINT": hub.url}
    ) as client:
        try:
            orphan = wait_for_bytes(blobs_of(tmp_path, "org/large"), 10 * 1024 * 1024)
        finally:
            client.send_signal(signal.SIGKILL)
    hub.rules.clear()
    asked, left = len(hub.requests), orphan.stat().st_size
    snapshot = Path(said(diachunk(tmp_path, "fetch", "hub:org/large", HF_ENDPOINT=hub.url)))
    assert (snapshot / "weights.pth").read_bytes() == data
    # at least a chunk of it; while one lane reads what is here, another may bring a neighbour from the network
    assert bytes_asked(hub, asked) <= len(data) - 4 * 1024 * 1024
    assert orphan.stat().st_size == left


def bytes_asked(hub: Hub, after: int) -> int:
    """Of the second host, by all but the first `after` requests."""
    ranges = [each.range or "" for each in hub.requests[after:] if each.server == "cdn"]
    ends = [each.removeprefix("bytes=").split("-") for each in ranges]
    return sum(int(last) - int(first) + 1 for first, last in ends)


def wait_for_bytes(blobs: Path, count: int) -> Path:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        for path in blobs.glob("*.incomplete"):
            if path.stat().st_size >= count:
                return path
        time.sleep(0.02)
    raise TimeoutError(f"no client wrote {count} bytes into {blobs}")


@every_hub
def test_a_cache_is_checked_offline_by_the_digests_in_its_names(
    program: Program, hub: Hub, tmp_path: Path
) -> None:
    said(run(program, DOWNLOAD, tmp_path, HF_ENDPOINT=hub.url))
    weights = weights_of(tmp_path, hub)
    hub.close()
    whole = diachunk(tmp_path, "verify", "--cache", "hub")
    assert whole.returncode == 0, whole.stderr
    flip(weights)
    before = state(tmp_path / "huggingface")
    damaged = diachunk(tmp_path, "verify", "--cache", "hub")
    assert damaged.returncode == 4
    assert VOCODER in damaged.stdout
    assert state(tmp_path / "huggingface") == before
    # the client sees nothing
    said(run(program, DOWNLOAD, tmp_path, HF_HUB_OFFLINE="1"))


@every_hub
def test_a_damaged_cache_is_mended_from_the_hub(
    program: Program, hub: Hub, tiny_dia: TinyDia, tmp_path: Path
) -> None:
    said(run(program, DOWNLOAD, tmp_path, HF_ENDPOINT=hub.url))
    weights = weights_of(tmp_path, hub)
    flip(weights)
    mended = diachunk(tmp_path, "verify", "--cache", "hub", "--repair", HF_ENDPOINT=hub.url)
    assert mended.returncode == 0, mended.stderr
    assert weights.read_bytes() == (tiny_dia.vocoder / WEIGHTS).read_bytes()
    if program is HUB_2:
        command = [str(python_of(program).with_name("hf")), "cache", "verify", VOCODER]
        assert "Verified 3" in said(run_command(command, tmp_path, HF_ENDPOINT=hub.url))


def test_a_shared_blob_is_mended_by_replacing_the_link(hub: Hub, tiny_dia: TinyDia, tmp_path: Path) -> None:
    """As the clients' shared store has them since 1.32: what others link to is not written to."""
    said(run(HUB_2, DOWNLOAD, tmp_path, HF_ENDPOINT=hub.url))
    weights = weights_of(tmp_path, hub)
    store = tmp_path / "huggingface" / "hub" / "blobs"
    shared = store / "ab" / ("ab" * 32)
    shared.parent.mkdir(parents=True)
    (store / ".huggingface-shared-blobs").write_text("1\n")
    weights.rename(shared)
    weights.symlink_to(os.path.relpath(shared, weights.parent))
    flip(shared)
    shared.chmod(0o444)
    wrong = shared.read_bytes()

    assert diachunk(tmp_path, "verify", "--cache", "hub").returncode == 4
    mended = diachunk(tmp_path, "verify", "--cache", "hub", "--repair", HF_ENDPOINT=hub.url)
    assert mended.returncode == 0, mended.stderr
    assert not weights.is_symlink()
    assert weights.read_bytes() == (tiny_dia.vocoder / WEIGHTS).read_bytes()
    assert shared.read_bytes() == wrong
    said(run(HUB_2, DOWNLOAD, tmp_path, HF_HUB_OFFLINE="1"))
