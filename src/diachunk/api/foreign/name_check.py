"""Whole files against the digest that is stated for them: one pass, bounded memory, several files side by side."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from diachunk.digest import git_hasher
from diachunk.errors import Interrupted, StoreError
from diachunk.places.proof import Running, hash_into
from diachunk.store.stamps import Stamp
from diachunk.transfer.progress import How, Listener, Progress, Status, silent

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Claim:
    """A file and the digest that it should have: `algorithm` is "sha256" or "git"."""

    path: Path
    size: int
    algorithm: str
    expected: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What reading it found. `found` is "" and `why` says why where it could not be read."""

    found: str
    identity: Stamp | None = None
    why: str = ""


class _Stopped(Exception):
    """Ctrl-C: the hash under way is given up."""


def check_claims(claims: Sequence[Claim], listener: Listener = silent) -> list[Answer]:
    """Hashes each file by the way its claim names.

    Raises:
        Interrupted: Ctrl-C.
    """
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    stop = threading.Event()
    left = sum(claim.size for claim in claims)
    with ThreadPoolExecutor(min(len(claims), os.cpu_count() or 2) or 1, "diachunk-hash") as pool:
        jobs = [pool.submit(_read, claim, told, stop) for claim in claims]
        try:
            _tell(jobs, told, left, listener)
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise Interrupted("stopped") from None
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [job.result() for job in jobs]


def _tell(
    jobs: Sequence[Future[Answer]], told: queue.SimpleQueue[int], left: int, listener: Listener
) -> None:
    """Passes on what the threads have read, on the calling thread, until they are done."""
    pending = set(jobs)
    while pending or not told.empty():
        size = 0
        try:
            size = told.get(timeout=_POLL_S)
            while True:
                size += told.get_nowait()
        except queue.Empty:
            pass
        if size:
            left = max(0, left - size)
            listener(Progress(size, "", How.HASHED))
            listener(Status(left, 0.0, None, "", ()))
        pending = {job for job in pending if not job.done()}


def _read(claim: Claim, told: queue.SimpleQueue[int], stop: threading.Event) -> Answer:
    running: Running = git_hasher(claim.size) if claim.algorithm == "git" else hashlib.sha256()

    def read(size_bytes: int) -> None:
        if stop.is_set():
            raise _Stopped
        told.put(size_bytes)

    try:
        identity = hash_into(claim.path, [running], read)
    except StoreError as error:
        return Answer("", why=error.message)
    except _Stopped:
        return Answer("", why="stopped")
    return Answer(running.hexdigest(), identity)
