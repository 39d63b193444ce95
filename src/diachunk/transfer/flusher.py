"""Makes data durable while the transfer goes on: one thread that flushes and completes files."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from diachunk.errors import DiachunkError
from diachunk.transfer.sink import Sink


class Flusher:
    """Flushes a sink after every `flush_bytes` written to it, and completes it when told."""

    def __init__(self, flush_bytes: int, failed: Callable[[BaseException], None]) -> None:
        self._flush_bytes = flush_bytes
        self._failed = failed
        self._unflushed: dict[int, int] = {}
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Sink, Callable[[], None] | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="diachunk-flush", daemon=True)
        self._thread.start()

    def wrote(self, sink: Sink, size_bytes: int) -> None:
        with self._lock:
            unflushed = self._unflushed.get(id(sink), 0) + size_bytes
            due = unflushed >= self._flush_bytes
            self._unflushed[id(sink)] = 0 if due else unflushed
        if due:
            self._jobs.put((sink, None))

    def complete(self, sink: Sink, then: Callable[[], None]) -> None:
        self._jobs.put((sink, then))

    def close(self) -> None:
        """Waits until everything asked for is done."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        failed = False
        while (job := self._jobs.get()) is not None:
            sink, then = job
            if failed:
                continue
            try:
                if then is None:
                    sink.flush()
                else:
                    sink.complete()
                    then()
            except (DiachunkError, OSError) as error:
                failed = True
                self._failed(error)
