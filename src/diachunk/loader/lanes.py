"""The pipeline: lanes read chunks, hash them, and put them where they belong, side by side."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Sequence

from diachunk.errors import LoadError
from diachunk.loader.blob import Blob, Damaged
from diachunk.loader.device import Desk, Device, host_view
from diachunk.loader.feed import Arrivals, Feed
from diachunk.loader.host import one_core_each
from diachunk.loader.landing import Landing
from diachunk.loader.meter import Meter, Stage

LANES_MIN, LANES_MAX = 2, 16
_END_S = 5.0


def lane_count(jobs: int) -> int:
    """One for each core and one more, so that a core is not idle while a lane waits for a page."""
    return max(1, min(jobs, LANES_MAX, max(LANES_MIN, (os.cpu_count() or 1) + 1)))


class Pipeline:
    """One pass over the jobs of a feed.

    Attributes:
        damaged: (file, chunk) of chunks that are not what they should be, where `collect` asks to go on.
    """

    def __init__(
        self,
        feed: Feed,
        blobs: Sequence[Blob],
        landing: Landing,
        device: Device,
        meter: Meter,
        *,
        arrivals: Arrivals | None = None,
        collect: bool = False,
        in_place: frozenset[int] = frozenset(),
    ) -> None:
        self.damaged: list[tuple[int, int]] = []
        self.lanes = lane_count(len(feed))
        self._feed = feed
        self._blobs = blobs
        self._landing = landing
        self._device = device
        self._meter = meter
        self._arrivals = arrivals
        self._collect = collect
        self._in_place = in_place
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._left = 0
        self.over = threading.Event()

    def start(self) -> None:
        if not len(self._feed):
            self.over.set()
            return
        self._left = self.lanes
        for _ in range(self.lanes):
            thread = threading.Thread(target=self._run, name="diachunk-load", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no memory for one more stack, or a limit on threads
                self._go_on_with(len(self._threads), error)
                return
            self._threads.append(thread)

    def _go_on_with(self, started: int, error: RuntimeError) -> None:
        """Fewer lanes than planned.

        Raises:
            LoadError: none at all.
        """
        if not started:
            raise LoadError(f"no thread can be started to load with: {error}") from error
        with self._lock:
            self._left -= self.lanes - started
            self.lanes = started
            last = not self._left
        if last:
            self.over.set()

    def check(self) -> None:
        """Raises what ended a lane.

        Raises:
            Damaged, DiachunkError, or whatever torch raised.
        """
        with self._lock:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self) -> None:
        """Ends the lanes; waits until none of them touches a tensor any more, within bounds."""
        self._feed.stop()
        until = time.monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    # --- a lane --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        desk: Desk | None = None
        try:
            desk = self._device.desk()
            one_core_each()
            while (job := self._take()) is not None:
                self._serve(desk, *job)
            desk.settle()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the load must end with it, not hang
            self._fail(error)
        finally:
            self._leave(desk)

    def _leave(self, desk: Desk | None) -> None:
        try:
            if desk is not None:
                desk.settle()
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(error)
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self.over.set()

    def _fail(self, error: BaseException) -> None:
        # Whoever holds the error would hold what these frames know: buffers, and tensors of the device.
        traceback.clear_frames(error.__traceback__)
        with self._lock:
            self._error = self._error or error
        self._feed.stop()

    def _take(self) -> tuple[int, int, int] | None:
        started_at = time.perf_counter()
        job = self._feed.take()
        if self._arrivals is not None:
            self._meter.spent(Stage.NETWORK, time.perf_counter() - started_at)
        return job

    def _serve(self, desk: Desk, job: int, file: int, chunk: int) -> None:
        blob = self._blobs[file]
        try:
            if file in self._in_place:
                start, size = blob.facts.chunks.offsets[chunk], blob.facts.chunks.sizes[chunk]
                self._check(blob, chunk, memoryview(blob.window())[start : start + size])
                data = None
            else:
                data = self._read(desk, blob, file, chunk)
        except Damaged:
            if not self._excused(job, file, chunk):
                raise
            return
        self._feed.done()
        if data is None:
            self._arrived(blob, file, chunk)
        else:
            self._put(desk, blob, file, chunk, data)

    def _read(self, desk: Desk, blob: Blob, file: int, chunk: int) -> memoryview | None:
        """Reads and hashes a chunk. Returns what is to be put in place, None if it is in place already."""
        size = blob.facts.chunks.sizes[chunk]
        direct = self._landing.direct(blob, file, chunk)
        view = desk.buffer()[:size] if direct is None else host_view(direct)
        started_at = time.perf_counter()
        blob.read(chunk, view)
        self._meter.spent(Stage.READ, time.perf_counter() - started_at)
        self._meter.count(read=size)
        if not blob.trusted:
            self._check(blob, chunk, view)
        return None if direct is not None else view

    def _check(self, blob: Blob, chunk: int, view: memoryview) -> None:
        started_at = time.perf_counter()
        blob.check(chunk, view)
        self._meter.spent(Stage.VERIFY, time.perf_counter() - started_at)
        self._meter.count(verified=len(view))
        with self._lock:
            blob.verified.add(chunk)

    def _excused(self, job: int, file: int, chunk: int) -> bool:
        """Whether to go on after a bad chunk: it is still being fetched, or is mended afterwards."""
        if self._arrivals is not None and not self._arrivals.over:
            self._feed.give_back(job)
            return True
        if self._collect:
            with self._lock:
                self.damaged.append((file, chunk))
            self._feed.done()
        return self._collect

    def _put(self, desk: Desk, blob: Blob, file: int, chunk: int, data: memoryview) -> None:
        started_at = time.perf_counter()
        pieces = self._landing.pieces(blob, file, chunk, data)
        desk.put(pieces, lambda: self._arrived(blob, file, chunk))
        casting = any(piece.target.dtype != piece.dtype for piece in pieces)
        self._meter.spent(Stage.CAST if casting else Stage.COPY, time.perf_counter() - started_at)

    def _arrived(self, blob: Blob, file: int, chunk: int) -> None:
        self._meter.count(landed=self._landing.arrived(blob, file, chunk))
