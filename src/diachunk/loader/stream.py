"""Tensors one after the other, each as soon as it is there and everything before it was handed out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import torch

from diachunk.errors import Interrupted, LoadError
from diachunk.limits import MiB
from diachunk.loader.job import Job, out_of_memory
from diachunk.loader.runner import TICK_S, Runner

AHEAD_BYTES = 256 * MiB
"""How much may be complete and not yet taken. Beyond it lanes work only on what is to be handed out next."""


class Outlet:
    """What is complete, and what was taken. Lanes call `told`, the one who iterates the rest."""

    def __init__(self, *, bounded: bool) -> None:
        self._bounded = bounded
        self._changed = threading.Condition()
        self._complete: set[int] = set()
        self._waiting_bytes = 0
        self._rank = 0
        self._stopped = False
        self._job: Job | None = None

    def open(self, job: Job) -> None:
        self._job = job

    def told(self, storage: int) -> None:
        """A storage is complete."""
        with self._changed:
            self._complete.add(storage)
            self._waiting_bytes += self._size(storage)
            self._changed.notify_all()
            self._restrain()

    def wait_for(self, storage: int, rank: int, timeout_s: float) -> bool:
        """Whether a storage is complete, now or soon; `rank` is that of the tensor which is wanted next.

        Raises:
            Interrupted: `stop` was called.
        """
        with self._changed:
            if self._stopped:
                raise Interrupted("stopped")
            self._rank = rank
            self._restrain()
            if storage not in self._complete:
                self._changed.wait(timeout_s)
            return storage in self._complete

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def took(self, storage: int) -> None:
        with self._changed:
            self._waiting_bytes -= self._size(storage)
            self._restrain()

    def _size(self, storage: int) -> int:
        assert self._job is not None
        return 0 if storage in self._job.work.mapped else self._job.layout.storages[storage].size

    def _restrain(self) -> None:
        if self._bounded and self._job is not None and self._job.feed is not None:
            self._job.feed.hold(self._rank + 1 if self._waiting_bytes > AHEAD_BYTES else None)


def iterate(job: Job, outlet: Outlet, runner: Runner) -> Iterator[tuple[str, torch.Tensor]]:
    """Runs the job and yields its tensors in its order. What was yielded is the caller's: nothing here keeps it.

    Raises:
        IntegrityError, DiachunkError; or what torch raised.
    """
    outlet.open(job)
    try:
        try:
            yield from _tensors(job, outlet, runner)
        finally:
            runner.stop()
        return
    except (MemoryError, RuntimeError) as error:
        refused = out_of_memory(job, error)
        if refused is None:
            raise
    raise refused


def _tensors(job: Job, outlet: Outlet, runner: Runner) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in job.layout.ready.items():
        yield name, job.ready_tensor(name, tensor)
    uses = Counter(view.storage for view in job.layout.views)
    runner.start()
    for rank, view in enumerate(job.layout.views):
        while not outlet.wait_for(view.storage, rank, TICK_S):
            if runner.step(0.0) and not job.landing.is_complete(view.storage):
                raise LoadError(f"tensor {view.name!r:.80} did not become complete")
        job.check_unchanged(view.storage)
        tensor = job.landing.tensor(view)
        uses[view.storage] -= 1
        if not uses[view.storage]:
            job.landing.let_go(view.storage)
            outlet.took(view.storage)
        yield view.name, tensor
        del tensor
    while not runner.step(TICK_S):
        pass
