"""stream: tensors one by one, in a `for` loop or an `async for` loop. And the events of a load, asynchronously."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from diachunk.api.asynchronous import from_thread
from diachunk.api.load_opened import Opened, load_with
from diachunk.api.load_options import LoadOptions, LoadSettings
from diachunk.loader.events import LoadEvent, LoadPlan, LoadReport

if TYPE_CHECKING:
    from typing import Unpack

    import torch

    from diachunk.loader.loaded import Loaded

Named: TypeAlias = "tuple[str, torch.Tensor]"


class TensorStream:
    """Iterates (name, tensor), once. Leaving the loop early stops the load; `close` (or `with`, or
    `async with`) does so at once.

    Attributes:
        plan: what is going to be loaded.
        metadata: as `Loaded.metadata`.
        report: what it took; complete once the last tensor was taken.
    """

    def __init__(self, opened: Opened, order: Sequence[str] | None = None) -> None:
        self._opened = opened
        try:
            self._streaming = opened.loading(order=order).stream()
        except BaseException:
            opened.close()
            raise
        self.plan: LoadPlan = self._streaming.plan
        self.metadata: Mapping[str, Any] = self._streaming.metadata
        self.report: LoadReport = self._streaming.report
        self._iterator = self._run()

    def _run(self) -> Iterator[Named]:
        try:
            yield from self._streaming
            self._opened.settle(self.report)
        finally:
            self.close()

    def __iter__(self) -> Iterator[Named]:
        return self._iterator

    async def __aiter__(self) -> AsyncIterator[Named]:
        loop = asyncio.get_running_loop()
        end = object()
        try:
            while True:
                step = loop.run_in_executor(None, functools.partial(next, self._iterator, end))
                try:
                    item = await asyncio.shield(step)
                except asyncio.CancelledError:
                    self.stop()
                    await asyncio.wait([step])
                    raise
                if item is end:
                    return
                yield item
        finally:
            await loop.run_in_executor(None, self.close)

    def stop(self) -> None:
        """Makes the one who waits for the next tensor give up; may be called on any thread."""
        self._streaming.stop()

    def close(self) -> None:
        """Ends the load, and the fetch if there is one. Tensors that were handed out stay."""
        self._streaming.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        await asyncio.get_running_loop().run_in_executor(None, self.close)


@dataclass(frozen=True, slots=True)
class LoadDone:
    """The last event: the load is done."""

    loaded: Loaded
    bytes: int = 0


def load_events(
    target: str | os.PathLike[str], component: str | None = None, **options: Unpack[LoadOptions]
) -> AsyncGenerator[LoadEvent | LoadDone, None]:
    """Loads on a thread and yields what happens; the last event is LoadDone. Leaving the loop early stops the load.

    Args:
        options: those of `load`, but for `progress`.

    Raises:
        DiachunkError: as load.
    """
    settings = LoadSettings(**options)
    settings = replace(settings, device=_meant_here(settings.device))

    callers_stream = _stream_here(settings.device)

    def run(listen: Callable[[LoadEvent], None]) -> LoadDone:
        with callers_stream:
            return LoadDone(load_with(target, component, replace(settings, progress=listen)))

    return from_thread(run)


def _meant_here(device: str | torch.device) -> str | torch.device:
    """Which GPU "cuda" is on this thread: `torch.cuda.set_device` counts for one thread, and others begin with the
    first.
    """
    loaded = sys.modules.get("torch")
    if str(device) not in ("cuda", "auto") or loaded is None or not loaded.cuda.is_initialized():
        return device
    return f"cuda:{loaded.cuda.current_device()}"


def _stream_here(device: str | torch.device) -> AbstractContextManager[object]:
    """The stream of this thread on that GPU: tensors are made and freed on it. Other threads begin with the default."""
    loaded = sys.modules.get("torch")
    if not str(device).startswith("cuda") or loaded is None or not loaded.cuda.is_initialized():
        return nullcontext()
    try:
        stream: AbstractContextManager[object] = loaded.cuda.stream(loaded.cuda.current_stream(device))
    except (RuntimeError, AssertionError, ValueError):
        return nullcontext()  # no such GPU: the load says so
    return stream
