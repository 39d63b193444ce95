"""One node as others take from it: against nginx, and with two hundred downloaders at once."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import diachunk
from benchmarks import measure
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.testing.servers import Nginx

_CONNECTIONS = 4
_DOWNLOADERS = 200
_DOWNLOAD_S = 20.0


def against_nginx(folder: Path, rounds: int, size_mib: int) -> str:
    """The same client takes the same file from a node and from nginx, over 4 connections."""
    digest, size = _published(folder, size_mib)
    client = [sys.executable, "-m", "benchmarks.serving_client"]
    with _node(folder / "serving-home") as (port, process), Nginx(folder / "serving") as nginx:
        urls = {
            "diachunk": f"http://127.0.0.1:{port}/v1/blobs/{digest}",
            "nginx": f"{nginx.url}/model/a.bin",
        }
        rows = measure.race(
            [
                measure.Contender(name, [*client, url, str(size), str(_CONNECTIONS)])
                for name, url in urls.items()
            ],
            rounds,
        )
        peak = _peak_bytes(process.pid)
    ours, theirs = rows
    lines = [
        (row.name, f"{size / row.median_wall_s() / measure.GB:.2f}", "" if row is ours else "1.00x")
        for row in rows
    ]
    lines[0] = (
        lines[0][0],
        lines[0][1],
        f"**{measure.ratio(ours, theirs):.2f}x** ({measure.spread(ours, theirs)})",
    )
    return (
        f"### Serving {size_mib} MiB over loopback to {_CONNECTIONS} connections\n\n"
        + measure.table(("server", "GB/s", "of nginx"), lines)
        + f"\n\nMemory of the node: {peak / 1e6:.0f} MB at its peak."
    )


def to_many(folder: Path, rounds: int, size_mib: int) -> str:
    """200 downloaders, each of an address of its own, for some seconds. Rounds and size do not matter."""
    digest, size = _published(folder, min(size_mib, 512))
    with _node(folder / "serving-home") as (port, process):
        began = threading.Barrier(_DOWNLOADERS + 1)
        got, stop = [0] * _DOWNLOADERS, threading.Event()
        threads = [
            threading.Thread(
                target=_download, args=(port, digest, size, number, got, began, stop), daemon=True
            )
            for number in range(_DOWNLOADERS)
        ]
        for each in threads:
            each.start()
        began.wait()
        time.sleep(_DOWNLOAD_S)
        snapshot = sorted(got)
        stop.set()
        peak = _peak_bytes(process.pid)
        for each in threads:
            each.join(5)
    total, median = sum(snapshot), snapshot[_DOWNLOADERS // 2]
    return f"### {_DOWNLOADERS} downloaders at once, {_DOWNLOAD_S:.0f} s\n\n" + measure.table(
        ("in all", "least", "median", "most", "peak memory of the node"),
        [
            (
                f"{total / _DOWNLOAD_S / measure.GB:.2f} GB/s",
                *(f"{each / 1e6:.0f} MB" for each in (snapshot[0], median, snapshot[-1])),
                f"**{peak / 1e6:.0f} MB**",
            )
        ],
    )


def _download(
    port: int,
    digest: str,
    size: int,
    number: int,
    got: list[int],
    began: threading.Barrier,
    stop: threading.Event,
) -> None:
    buffer = memoryview(bytearray(256 * 1024))
    source = (f"127.1.{number // 250}.{number % 250 + 1}", 0)
    began.wait()
    while not stop.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=source)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", f"/v1/blobs/{digest}")
            reply = connection.getresponse()
            if reply.status != 200:
                time.sleep(0.5)
            while reply.status == 200 and not stop.is_set() and (more := reply.readinto(buffer)):
                got[number] += more


def _published(folder: Path, size_mib: int) -> tuple[str, int]:
    """A file of that size in a store; its digest, and its size."""
    root = folder / "serving"
    (root / "model").mkdir(parents=True, exist_ok=True)
    with (root / "model" / "a.bin").open("wb") as file:
        for number in range(max(1, size_mib * MiB // CHUNK_BYTES)):
            file.write(number.to_bytes(8, "little") * (CHUNK_BYTES // 8))
    home = folder / "serving-home"
    done = diachunk.publish([f"model={root / 'model'}"], name="bench/serving", home=home, force=True)
    entry = done.manifest.components[0].files[0]
    return entry.blake3.hex(), entry.size


@contextlib.contextmanager
def _node(home: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """In a session of its own, as a service is, and as nginx is here: Linux shares the processor between sessions
    (sched(7), autogroup), so that a server in the client's would get half of what the other server gets.
    """
    command = [sys.executable, "-m", "benchmarks.serving_node", str(home)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise SystemExit("no pipes")
        try:
            yield int(process.stdout.readline()), process
        finally:
            process.stdin.close()
            process.wait(20)


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0
