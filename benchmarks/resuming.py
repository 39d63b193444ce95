"""What a person waits for before anything happens: the first byte of a resumed fetch, and `ls` of a full store."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from blake3 import blake3

import diachunk
from benchmarks import fetching, measure
from diachunk.chunking.verify import ChunkRef, verify
from diachunk.digest import digest_of
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build, decode
from diachunk.store.stamps import Stamp, write_stamp
from diachunk.store.store import Store
from diachunk.testing.servers import Nginx

_PIECE_BYTES = 256 * 1024
_POLL_S = 0.05
_CHECKPOINTS, _FILES = 200, 20
_RESUME = """
import json, os, sys, time
import diachunk.api.fetching, diachunk.transfer.assemble, diachunk.sources.http
from diachunk.transfer.progress import How, Progress

def tell(event):
    if isinstance(event, Progress) and event.how is How.FETCHED:
        print(json.dumps([imported_at, time.perf_counter()]), flush=True)
        os._exit(0)

manifest, origin, home = sys.argv[1:]
imported_at = time.perf_counter()
diachunk.api.fetching.fetch(manifest, origins=[origin], home=home, progress=tell)
"""


class Tap:
    """Carries connections to a server and notes when the first byte of a request and of a reply passed.

    `time.perf_counter` is the system's monotonic clock, so the times compare with those of other processes.
    """

    def __init__(self, port: int) -> None:
        self.asked_at: float | None = None
        self.answered_at: float | None = None
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL_S)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._closing = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._sockets += client, server
            for source, target, down in ((client, server, False), (server, client, True)):
                self._threads.append(
                    threading.Thread(target=self._carry, args=(source, target, down), daemon=True)
                )
                self._threads[-1].start()

    def _carry(self, source: socket.socket, target: socket.socket, down: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                if down:
                    self.answered_at = self.answered_at or time.perf_counter()
                else:
                    self.asked_at = self.asked_at or time.perf_counter()
                target.sendall(data)
        _end(source)
        _end(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._threads[0].join()
        for each in self._sockets:
            _end(each)
        for thread in self._threads:
            thread.join()
        for each in (*self._sockets, self._listener):
            each.close()


def _end(connection: socket.socket) -> None:
    """Wakes who reads from it or writes to it, on both ends."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds from "imports done" to the first request, its reply's first byte, and the first event told."""

    asked_s: float
    answered_s: float
    told_s: float


def half_complete(manifest: Manifest, file: Path, home: Path, indexes: Sequence[int] | None = None) -> int:
    """Leaves in a store what a fetch of one file leaves that was stopped half-way; returns the bytes there.

    Args:
        file: the complete file.
        indexes: the chunks that are there, in place of the first half of them.
    """
    entry = manifest.components[0].files[0]
    chunks = entry.chunks
    there = range(len(chunks) // 2) if indexes is None else indexes
    store = Store.open(home)
    store.catalog.add(manifest)
    partial = store.blobs.open_partial(entry.blake3, chunks)
    try:
        with open(file, "rb") as source:
            for index in there:
                ref = ChunkRef(chunks.digest(index), chunks.sizes[index], entry.blake3, chunks.offsets[index])
                source.seek(ref.offset)
                partial.write(verify(ref, memoryview(source.read(ref.size))), ref.offset)
        partial.flush()
    finally:
        partial.close()
    return sum(chunks.sizes[index] for index in there)


def resumed(manifest: Path, home: Path, port: int) -> Start:
    """One fetch in a process of its own, ended by its first fetched byte."""
    with Tap(port) as tap:
        command = [sys.executable, "-c", _RESUME, str(manifest), tap.url, str(home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or tap.asked_at is None or tap.answered_at is None:
            raise SystemExit(f"the resumed fetch failed: {done.stderr[-500:]}")
        imported_at, told_at = json.loads(done.stdout)
        return Start(tap.asked_at - imported_at, tap.answered_at - imported_at, told_at - imported_at)


def first_byte(folder: Path, rounds: int, size_mib: int) -> str:
    """The part `resume`."""
    root, manifest = fetching.published(folder, size_mib * 1024 * 1024)
    decoded = decode(manifest.read_bytes())
    home = folder / "resume-home"
    starts = []
    with Nginx(root) as server:
        for number in range(rounds + 1):
            shutil.rmtree(home, ignore_errors=True)
            half_complete(decoded, root / "f.bin", home)
            start = resumed(manifest, home, server.port)
            print(f"  round {number}: {start.answered_s:.3f} s", file=sys.stderr, flush=True)
            if number:
                starts.append(start)
    shutil.rmtree(home, ignore_errors=True)

    def line(name: str, values: list[float]) -> list[str]:
        return [name, f"**{statistics.median(values):.3f}**", f"{min(values):.3f}-{max(values):.3f}"]

    lines = [
        line("the first request was sent", [each.asked_s for each in starts]),
        line("its reply began (target 0.3)", [each.answered_s for each in starts]),
        line("the program told of the first fetched byte", [each.told_s for each in starts]),
    ]
    return (
        f"### Resuming a half-complete partial of {size_mib} MiB\n\nSeconds after imports were done:\n\n"
        + measure.table(["when", "median", "smallest-largest"], lines)
    )


# --- ls ----------------------------------------------------------------------------------------------------


def full_store(home: Path, chunks_a_file: int, checkpoints: int = _CHECKPOINTS) -> Store:
    """A store of complete, proven, named checkpoints of 20 files each; their chunks have 8 bytes."""
    store = Store.open(home)
    layout = store.layout
    for number in range(checkpoints):
        files = []
        for index in range(_FILES):
            data = blake3(f"{number}/{index}".encode()).digest(length=8 * chunks_a_file)
            pieces = (data[at : at + 8] for at in range(0, len(data), 8))
            chunks = ChunkList.of((8, digest_of(piece)) for piece in pieces)
            entry = FileEntry(f"model-{index:05}.safetensors", len(data), digest_of(data), chunks)
            own = layout.blob(entry.blake3)
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_bytes(data)
            stamp = Stamp.of(own.stat()).adding(chunk_list=chunks.id)
            write_stamp(layout.files, layout.stamp(entry.blake3), stamp)
            files.append(entry)
        manifest = build(f"bench/model-{number}", "main", [Component("", tuple(files))])
        store.catalog.add(manifest)
        store.catalog.set_ref(manifest.name, manifest.revision, manifest.id)
    return store


def _library_s(home: Path) -> float:
    started_at = time.perf_counter()
    listing = diachunk.ls(home)
    if len(listing.held) != _CHECKPOINTS or not all(each.complete for each in listing.held):
        raise SystemExit("ls does not show what is there")
    return time.perf_counter() - started_at


def listing(folder: Path, rounds: int, size_mib: int) -> str:
    """The part `ls`. Nothing here depends on --size-mib."""
    lines = []
    empty = {"DIACHUNK_HOME": str(folder / "ls-empty")}
    for chunks_a_file in (1, 80):
        home = folder / "ls-home"
        full_store(home, chunks_a_file)
        command = [*fetching.DIACHUNK, "ls"]
        name = f"{_FILES * chunks_a_file:,}"
        ours, start = measure.race(
            [
                measure.Contender(name, command, environment={"DIACHUNK_HOME": str(home)}),
                measure.Contender("start-up", command, environment=empty),
            ],
            rounds,
            settle_s=0.1,
        )
        library = statistics.median(_library_s(home) for _ in range(rounds))
        cells = (ours.median_wall_s(), start.median_wall_s(), library)
        lines.append([name, f"**{cells[0]:.2f}**", *(f"{each:.2f}" for each in cells[1:])])
        shutil.rmtree(home)
    head = ["chunks of each", "`diachunk ls`, s (target 0.5)", "of an empty store, s", "`diachunk.ls()`, s"]
    return f"### `ls` of {_CHECKPOINTS} checkpoints of {_FILES} files\n\n{measure.table(head, lines)}"
