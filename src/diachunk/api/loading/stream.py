"""stream: tensors one by one, in a `for` loop or an `async for` loop. And the events of a load, asynchronously."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from diachunk.api.asynchronous import from_thread
from diachunk.api.loading.opened import Opened, load_with
from diachunk.api.loading.options import LoadOptions, LoadSettings
from diachunk.errors import Interrupted
from diachunk.loader.events import LoadEvent, LoadListener, LoadPlan, LoadReport

if TYPE_CHECKING:
    from typing import Unpack

    import torch

    from diachunk.loader.loaded import Loaded
    from diachunk.loader.session import Streaming

Named: TypeAlias = "tuple[str, torch.Tensor]"


class TensorStream:
    """Iterates (name, tensor), once. Leaving the loop early stops the load; `close` (or `with`, or
    `async with`) does so at once.

    Where an event loop runs it opens the checkpoint when it is first asked for something, on another thread for
    `async for` and `async with`: that may take as long as the headers, or a recipe, take to be fetched.
    """

    def __init__(
        self,
        begin: Callable[[LoadListener], tuple[Opened, Streaming]],
        listener: LoadListener,
        *,
        later: bool,
    ) -> None:
        """Args:
        begin: opens the checkpoint; what it tells goes to the listener that it is given.
        later: not now, but when it is first asked for something.
        """
        self._begin = begin
        self._listener = listener
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._begun: tuple[Opened, Streaming] | None = None
        self._iterator = self._run()
        if not later:
            self._open()

    @property
    def plan(self) -> LoadPlan:
        """What is going to be loaded."""
        return self._open()[1].plan

    @property
    def metadata(self) -> Mapping[str, Any]:
        """As `Loaded.metadata`."""
        return self._open()[1].metadata

    @property
    def report(self) -> LoadReport:
        """What it took; complete once the last tensor was taken."""
        return self._open()[1].report

    def _open(self) -> tuple[Opened, Streaming]:
        with self._lock:
            if self._begun is not None:
                return self._begun
            if self._left.is_set():
                raise Interrupted("stopped")
            begun = self._begun = self._begin(_until(self._left, self._listener))
        if self._left.is_set():  # meanwhile
            self.close()
        return begun

    def _run(self) -> Iterator[Named]:
        opened, streaming = self._open()
        try:
            yield from streaming
            opened.settle(streaming.report)
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
                    step.exception()  # that it was stopped: looked at, or the loop complains that nobody did
                    raise
                if item is end:
                    return
                yield item
        finally:
            await loop.run_in_executor(None, self.close)

    def stop(self) -> None:
        """Makes the one who waits for the next tensor give up; may be called on any thread."""
        self._left.set()
        if self._begun is not None:
            self._begun[1].stop()

    def close(self) -> None:
        """Ends the load, and the fetch if there is one. Tensors that were handed out stay."""
        self._left.set()
        if self._begun is not None:
            opened, streaming = self._begun
            streaming.close()
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._open)
        except asyncio.CancelledError:
            self.stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stop()
        await asyncio.get_running_loop().run_in_executor(None, self.close)


def _until(left: threading.Event, listener: LoadListener) -> LoadListener:
    """A listener that ends what tells it once nobody listens. It holds no stream: lanes hold it, and one that nobody
    has any more must end.
    """

    def tell(event: LoadEvent) -> None:
        if left.is_set():
            raise Interrupted("stopped", hint="what is verified is kept")
        listener(event)

    return tell


def open_stream(
    target: str | os.PathLike[str],
    component: str | None,
    settings: LoadSettings,
    order: Sequence[str] | None,
) -> TensorStream:
    """`stream`, its options in one piece.

    Raises:
        as `stream`; where an event loop runs nothing yet.
    """
    device = _meant_here(settings.device)
    callers_stream = _stream_here(device)

    def begin(listen: LoadListener) -> tuple[Opened, Streaming]:
        with callers_stream:
            opened = Opened(target, component, replace(settings, device=device, progress=listen))
            try:
                return opened, opened.loading(order=order).stream()
            except BaseException:
                opened.close()
                raise

    return TensorStream(begin, settings.progress, later=_in_a_loop())


def _in_a_loop() -> bool:
    """Whether an event loop runs on this thread, which nothing may keep waiting."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


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
