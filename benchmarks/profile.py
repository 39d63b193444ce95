"""Where each microsecond of a chunk goes: loops that do one thing more each, and what is left by subtraction."""

from __future__ import annotations

import os
import shutil
import socket
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diachunk
from benchmarks import fetching, measure, size
from diachunk.digest import digest_of
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.manifest import decode
from diachunk.schedule.work import BlobFacts, Run, WorkList
from diachunk.sources.context import SourceContext
from diachunk.sources.http import HttpOrigin
from diachunk.testing.servers import Nginx

_HEADER_BYTES_MAX = 64 * 1024


class PlainClient:
    """One keep-alive connection, one Range request at a time, no library: the least that HTTP can cost."""

    def __init__(self, port: int, path: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._path = path

    def fill(self, first: int, view: memoryview) -> None:
        last = first + len(view) - 1
        self._socket.sendall(
            f"GET /{self._path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes={first}-{last}\r\n\r\n".encode()
        )
        head = b""
        while (end := head.find(b"\r\n\r\n")) < 0:
            piece = self._socket.recv(2048)
            if not piece or len(head) > _HEADER_BYTES_MAX:
                raise SystemExit("the server gave no reply")
            head += piece
        if not head.startswith(b"HTTP/1.1 206 "):
            raise SystemExit(f"the server answered {head[:40]!r}")
        got = len(head) - end - 4
        view[:got] = head[end + 4 :]
        while got < len(view):
            size_bytes = self._socket.recv_into(view[got:])
            if not size_bytes:
                raise SystemExit("the server closed the connection")
            got += size_bytes

    def close(self) -> None:
        self._socket.close()


class FreeFlow:
    """`sources.base.Flow` without a schedule: slices of the size that a fast line gets."""

    def slice_bytes(self) -> int:
        return DEFAULT.slice_max_bytes

    def advance(self, size_bytes: int) -> None:
        return

    def on_cancel(self, wake: Callable[[], None]) -> None:
        return


@dataclass(frozen=True, slots=True)
class Subject:
    """What is fetched in every loop: one file of one origin."""

    root: Path
    manifest: Path
    facts: BlobFacts
    port: int
    out: Path
    home: Path

    @property
    def runs(self) -> list[Run]:
        work = WorkList([self.facts])
        return [work.run(item, 1) for item in range(len(work))]


def _loop(subject: Subject, fill: Callable[[Run, memoryview], None], *, hashed: bool, written: bool) -> None:
    """Every chunk after the other through one buffer, as a lane has it."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    subject.out.unlink(missing_ok=True)
    fd = os.open(subject.out, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for run in subject.runs:
            view = buffer[: run.size]
            fill(run, view)
            if hashed and digest_of(view) != run.refs[0].digest:
                raise SystemExit("wrong bytes")
            if written:
                os.pwrite(fd, view, run.offset)
    finally:
        os.close(fd)


def _plain(subject: Subject, *, hashed: bool = False, written: bool = False) -> None:
    client = PlainClient(subject.port, subject.facts.path)
    try:
        _loop(subject, lambda run, view: client.fill(run.offset, view), hashed=hashed, written=written)
    finally:
        client.close()


def _through_source(subject: Subject) -> None:
    origin = HttpOrigin(f"http://127.0.0.1:{subject.port}", SourceContext())
    try:
        _loop(subject, lambda run, view: origin.fill(run, 0, view, FreeFlow()), hashed=True, written=True)
    finally:
        origin.close()


def _whole_fetch(subject: Subject) -> None:
    origin = f"http://127.0.0.1:{subject.port}"
    diachunk.fetch(str(subject.manifest), origins=[origin], home=subject.home)


def _touch_free_memory(ballast: Path, size_bytes: int) -> None:
    """Leaves as much free memory as a loop writes, used a moment ago.

    A virtual machine that reports free pages to its host pays for the first touch of each, four times what
    writing costs: the loop that comes last would pay for all of them.
    """
    zeros = bytes(CHUNK_BYTES)
    with open(ballast, "wb") as file:
        for _ in range(size_bytes // CHUNK_BYTES):
            file.write(zeros)
    ballast.unlink()


def steps(totals_us: dict[str, float], scheduling_us: float) -> list[tuple[str, float]]:
    """What each step takes, from loops that do one more each. The last is all that has no loop of its own."""
    plain, hashed, written = totals_us["plain"], totals_us["hashed"], totals_us["written"]
    source, fetch = totals_us["source"], totals_us["fetch"]
    return [
        ("out of the socket (recv, one plain request)", plain),
        ("BLAKE3", hashed - plain),
        ("into the file (pwrite)", written - hashed),
        ("HTTP: urllib3, checks of the reply, slices", source - written),
        ("the schedule", scheduling_us),
        ("threads, locks, books, events, opening and completing the file", fetch - source - scheduling_us),
    ]


def of_a_chunk(folder: Path, rounds: int, size_mib: int) -> str:
    """The part `profile`."""
    root, manifest_path = fetching.published(folder, size_mib * 1024 * 1024)
    entry = decode(manifest_path.read_bytes()).components[0].files[0]
    facts = BlobFacts(entry.blake3, entry.size, entry.chunks, "", entry.path)
    home = folder / "profile-home"
    with Nginx(root) as server:
        subject = Subject(root, manifest_path, facts, server.port, folder / "profile-out", home)
        loops: dict[str, Callable[[], None]] = {
            "plain": lambda: _plain(subject),
            "hashed": lambda: _plain(subject, hashed=True),
            "written": lambda: _plain(subject, hashed=True, written=True),
            "source": lambda: _through_source(subject),
            "fetch": lambda: _whole_fetch(subject),
        }
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for number in range(rounds + 1):
            for name, work in loops.items():
                shutil.rmtree(home, ignore_errors=True)
                subject.out.unlink(missing_ok=True)
                _touch_free_memory(folder / "profile-ballast", facts.size)
                took = measure.cpu_of(work)
                if number:
                    seconds[name].append(took)
        dry = [*fetching.DIACHUNK, "fetch", str(manifest_path), "--dry-run", "--origin", server.url]
        environment = {"DIACHUNK_HOME": str(folder / "profile-empty")}
        start = statistics.median(
            measure.run_once(measure.Contender("start-up", dry, environment=environment)).cpu_s
            for _ in range(rounds)
        )
    subject.out.unlink(missing_ok=True)
    shutil.rmtree(home, ignore_errors=True)
    count = len(facts.chunks)
    totals_us = {name: min(each) / count * 1e6 for name, each in seconds.items()}
    items = WorkList([facts])
    scheduling_us = statistics.median(size.scheduling_s(items, 1) for _ in range(rounds)) / count * 1e6
    return _report(steps(totals_us, scheduling_us), totals_us["fetch"], start, count)


def _report(parts: list[tuple[str, float]], fetch_us: float, start_s: float, count: int) -> str:
    lines = [[name, f"{each:,.0f}", f"{each / fetch_us:.0%}"] for name, each in parts]
    lines.append(["**a chunk, from `diachunk.fetch()`**", f"**{fetch_us:,.0f}**", ""])
    lines.append(
        [
            f"the interpreter's start, imports and the plan: {start_s:.2f} s once, over {count:,} chunks",
            f"{start_s / count * 1e6:,.0f}",
            "",
        ]
    )
    return (
        "### Where the time of a chunk of 4 MiB goes\n\nCPU microseconds of the client (user and system), from one "
        "nginx on loopback onto tmpfs; each line but the first and the schedule's is a difference of two loops, of "
        "each the least of the rounds, since whatever disturbs only adds.\n\n"
        + measure.table(["step", "microseconds", "share"], lines)
    )
