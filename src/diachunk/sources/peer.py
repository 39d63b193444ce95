"""A peer: another node's store. Runs come as ranges of its blobs, or chunk by chunk (P7, P8 of docs/protocol.md)."""

from __future__ import annotations

import re
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from urllib3.response import BaseHTTPResponse

from diachunk.chunking.verify import ChunkRef
from diachunk.digest import Digest
from diachunk.errors import printable, redact
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import Run
from diachunk.sources.base import Flow, SourceFault, Stream
from diachunk.sources.body import Body, range_of
from diachunk.sources.connections import Connections
from diachunk.sources.context import SourceContext
from diachunk.sources.reply import REDIRECTS, reason_of

_SMALL_BODY_BYTES = 4096
_ZONE = re.compile(r"%[^\]]*")

Authorize = Callable[[str, str], str | None]
"""(method, target) -> the Authorization header of that one request, or None."""


@dataclass(slots=True)
class Given:
    """What a peer gave so far. Kept by whoever knows the peer for longer than one session lasts."""

    size_bytes: int = 0
    busy_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, size_bytes: int, seconds: float) -> None:
        with self._lock:
            self.size_bytes += size_bytes
            self.busy_s += seconds

    @property
    def request_bps(self) -> float:
        """How fast one request went, on the average; 0.0 if there was none."""
        return self.size_bytes / self.busy_s if self.busy_s else 0.0


class PeerSource:
    """Another node. Never through a proxy, never where it redirects to, with no credentials but the lab's proof.

    Attributes:
        by_chunks: it does not know the manifest, so what it has lies elsewhere there: only P8 is asked.
        given: counts what came.
        pieces: what came of stated files (P19), by key: where in the file each piece begins.
    """

    tier = Tier.NETWORK

    def __init__(
        self,
        address: str,
        context: SourceContext,
        *,
        authorize: Authorize | None = None,
        by_chunks: bool = False,
        given: Given | None = None,
        stated: bool = False,
    ) -> None:
        """`address` is an IP address and a port as `node.model.Address` writes them. `stated`: asked for pieces of
        stated files, which nothing can vouch for but the whole.
        """
        self.label = address
        self.by_chunks = by_chunks
        self.given = given or Given()
        self.pieces: dict[Digest, set[int]] = {}
        self._stated = stated
        self._authorize = authorize
        self._connections = Connections(context, direct=True)
        # RFC 6874: a zone's "%" is escaped in a URL; it means something on this machine only (RFC 4007, 6).
        self._root = "http://" + address.replace("%", "%25")
        self._host = _ZONE.sub("", address)

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        began_at = time.monotonic()
        if self._stated:
            self._fill_stated(run, start, view, flow)
        elif self.by_chunks or not self._fill_range("blobs", run, start, view, flow):
            self._fill_by_chunks(run, start, view, flow)
        self.given.add(len(view), time.monotonic() - began_at)

    def stream(self, run: Run, flow: Flow) -> Stream:
        raise SourceFault(Fault.FAILED, "a peer is read in ranges")

    def close(self) -> None:
        self._connections.close()

    def _fill_stated(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        # Said before it comes: also what was cut off, and taken up from elsewhere, is partly its work.
        self.pieces.setdefault(run.blob.digest, set()).update(ref.offset for ref in run.refs)
        if not self._fill_range("stated", run, start, view, flow):
            raise SourceFault(Fault.MISSING, f"{reason_of(404)} (piece at {run.offset} of {run.blob.label})")

    def _fill_range(self, kind: str, run: Run, start: int, view: memoryview, flow: Flow) -> bool:
        """Fills the view; False if the peer does not offer that range of that blob."""
        first = run.offset + start
        response = self._ask(f"/v1/{kind}/{run.blob.digest.hex()}", range_of(first, len(view)), flow)
        body = Body(response, flow)
        if response.status in (404, 410):
            body.dismiss(_SMALL_BODY_BYTES)
            return False
        body.read_range(view, first, run.blob.size)
        return True

    def _fill_by_chunks(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        """One request a chunk. A resumed run begins inside of one, whose first bytes are read and dropped."""
        ends = [ref.end - run.offset for ref in run.refs]
        for ref in run.refs[bisect_right(ends, start) :]:
            at = ref.offset - run.offset - start
            self._fill_chunk(ref, max(0, -at), view[max(0, at) : at + ref.size], flow)

    def _fill_chunk(self, ref: ChunkRef, skip: int, view: memoryview, flow: Flow) -> None:
        if not view:
            return
        response = self._ask(f"/v1/chunks/{ref.digest.hex()}", {}, flow)
        body = Body(response, flow)
        if response.status in (404, 410):
            body.dismiss(_SMALL_BODY_BYTES)
            raise SourceFault(Fault.MISSING, f"{reason_of(404)} (chunk {ref.digest.hex()[:16]})")
        # A whole reply of the chunk's size: to a reader, a file of one chunk.
        body.read_range(view, 0, ref.size, skip=skip)

    def _ask(self, target: str, headers: Mapping[str, str], flow: Flow) -> BaseHTTPResponse:
        """One GET; its body is unread.

        Raises:
            SourceFault: no reply, or one that leads elsewhere.
        """
        sent = {"Host": self._host, **headers}
        if self._authorize and (proof := self._authorize("GET", target)):
            sent["Authorization"] = proof
        response = self._connections.get(self._root + target, sent, flow)
        if response.status in REDIRECTS:
            response.close()
            raise SourceFault(
                Fault.GARBLED, f"redirects to {_named(self._root, response.headers.get('Location', ''))}"
            )
        if response.status == 401:
            response.close()
            raise SourceFault(Fault.DENIED, "401: it wants the proof of another lab's secret")
        return response


def _named(root: str, location: str) -> str:
    """Where a redirect leads, in words that are safe to print."""
    try:
        host = urlsplit(urljoin(root, location[:400])).hostname
    except ValueError:
        host = None
    return printable(f"{host or redact(location[:400])}")[:80] + ", where no peer may lead"
