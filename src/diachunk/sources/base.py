"""What a source is: something that can fill a buffer with a run of chunks. Its bytes are untrusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import BlobFacts, Run


class Flow(Protocol):
    """The transfer's side of one request: a source reports each slice, and learns when to stop.

    Contract for sources: ask `slice_bytes` before each read, call `advance` after it, register with
    `on_cancel` whatever ends a blocked read. A source never sleeps and never retries by itself.
    """

    def slice_bytes(self) -> int:
        """How much to read at most before the next `advance`: a quarter of a second of flow."""
        ...

    def advance(self, size_bytes: int) -> None:
        """Says that `size_bytes` more are in the buffer; waits here when a cap on the rate says so.

        Raises:
            SourceFault: with Fault.CANCELLED or Fault.STALLED. Let it pass through.
        """
        ...

    def on_cancel(self, wake: Callable[[], None]) -> None:
        """Registers what wakes a read that blocks in another thread. Replaces the one before."""
        ...


class SourceFault(Exception):
    """A request did not bring its bytes. The schedule decides by `fault`; people read `detail`.

    Attributes:
        retry_after_s: what the source asked to wait, or 0.
        resumable: whether bytes already reported by `advance` are as good as any (a cut connection).
    """

    def __init__(
        self, fault: Fault, detail: str, *, retry_after_s: float = 0.0, resumable: bool = False
    ) -> None:
        self.fault = fault
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.resumable = resumable
        super().__init__(detail)


class Stream(Protocol):
    """A whole file being read from its start, from an origin that has no ranges."""

    def read_into(self, view: memoryview, flow: Flow) -> None:
        """Fills `view` with the next bytes of the file.

        Raises:
            SourceFault: they did not come.
        """
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """Anything that can fill a buffer: an origin, a peer, a donor, a partial.

    Plug-ins register a factory `(url, SourceContext) -> Source` for their URL scheme under the entry point
    group `diachunk.sources`; the suite that each must pass is `diachunk.testing.source_contract`.

    Contract: `fill` is called from several threads at once, each with its own buffer. It either fills
    `view` completely with the run's bytes or raises SourceFault, and nothing else for whatever the other end
    does. It judges no bytes: the caller verifies them.
    """

    @property
    def label(self) -> str:
        """How people know it, without credentials: "example.org" or "/mnt/mirror"."""
        ...

    @property
    def tier(self) -> Tier: ...

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        """Fills `view` with the run's bytes from `start` (bytes into the run; 0 unless resumed).

        Raises:
            SourceFault: with Fault.NO_RANGES when only `stream` can serve this source.
        """
        ...

    def stream(self, run: Run, flow: Flow) -> Stream:
        """Opens the run's whole file for reading once from its start.

        Raises:
            SourceFault: it cannot.
        """
        ...

    def close(self) -> None:
        """Lets go of connections and files. Wakes requests that are under way."""
        ...


@runtime_checkable
class Selective(Protocol):
    """A source that knows beforehand which files it may have; it is asked for no others. Others are asked for all."""

    def serves(self, blob: BlobFacts) -> bool: ...
