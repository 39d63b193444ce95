"""Reads a reply's body into a caller's buffer, in slices, so that progress, caps and stalls stay visible."""

from __future__ import annotations

import contextlib
import http.client
import io
from collections.abc import Callable
from typing import Protocol, cast

import urllib3
from urllib3.response import BaseHTTPResponse

from diachunk.schedule.health import Fault
from diachunk.sources.base import Flow, SourceFault
from diachunk.sources.connections import fault_of
from diachunk.sources.reply import check_range, content_length


def range_of(first: int, size_bytes: int) -> dict[str, str]:
    """The header that asks for bytes [first, first + size_bytes) (RFC 9110, 14.2)."""
    return {"Range": f"bytes={first}-{first + size_bytes - 1}"}


class _Readable(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class Body:
    """One reply's body.

    urllib3's own `readinto` is a read plus a copy (8 MiB a lane; docs/decisions/0001), so the http.client response
    below it is read directly; where a urllib3 has no such response, its own reads serve.
    """

    def __init__(self, response: BaseHTTPResponse, flow: Flow) -> None:
        self._response = response
        self._flow = flow
        below = getattr(response, "_fp", None)
        self._below = cast(_Readable, below if isinstance(below, http.client.HTTPResponse) else response)
        flow.on_cancel(self._wake)

    def read_range(self, view: memoryview, first: int, file_bytes: int, *, skip: int = 0) -> None:
        """Fills `view` from a reply to the request for these very bytes; then the connection can be used again.

        Args:
            first: where in the file what was asked for begins.
            file_bytes: how long the whole file is.
            skip: so many bytes of it come before what belongs into `view`, and nobody is told of them.

        Raises:
            SourceFault: it is another reply or a longer one; or as `read_into`.
        """
        try:
            check_range(self._response.status, self._response.headers, first, skip + len(view), file_bytes)
            if skip:
                Body(self._response, _Unnoted(self._flow)).read_into(memoryview(bytearray(skip)))
            self.read_into(view)
            self.expect_end()
        except BaseException:
            self.discard()
            raise
        self.release()

    def read_into(self, view: memoryview) -> None:
        """Fills `view`.

        Raises:
            SourceFault: the body ended early or the connection broke (`resumable`), stalled, was cancelled.
        """
        while view:
            wanted = min(self._flow.slice_bytes(), len(view))
            try:
                size = self._slice(view[:wanted])
            except (http.client.HTTPException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                self._flow.slice_bytes()
                raise fault_of(error, resumable=True) from error
            if not size:
                self._flow.slice_bytes()
                raise SourceFault(
                    Fault.FAILED, f"closed the connection {len(view):,} bytes early", resumable=True
                )
            self._flow.advance(size)
            view = view[size:]

    def _slice(self, view: memoryview) -> int:
        """Reads what is there, at most the view; 0 at the end of the body.

        Waiting for more than one recv brings would take a line that became slower for a stalled one, and
        lose what had come when a connection breaks.
        """
        below = self._below
        if isinstance(below, http.client.HTTPResponse) and below.fp and not below.chunked and below.length:
            room = min(len(view), below.length - 1)  # the last byte is http.client's: it ends the reply
            if room > 0:
                size = below.fp.readinto1(view[:room])
                below.length -= size
                return size
        data = below.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def read_all(self, limit_bytes: int) -> bytes | None:
        """The whole body, or None if it is larger than `limit_bytes`.

        Raises:
            SourceFault: it broke off.
        """
        pieces: list[bytes] = []
        size = 0
        while size <= limit_bytes:
            try:
                data = self._below.read1(self._flow.slice_bytes())
            except (http.client.HTTPException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise fault_of(error) from error
            if not data:
                if content_length(self._response.headers) not in (None, size):
                    raise SourceFault(Fault.FAILED, "closed the connection early")
                return b"".join(pieces)
            pieces.append(data)
            size += len(data)
        return None

    def expect_end(self) -> None:
        """Nothing may follow.

        Raises:
            SourceFault: GARBLED: more bytes than were asked for.
        """
        try:
            more = self._below.read1(1)
        except (http.client.HTTPException, urllib3.exceptions.HTTPError, OSError, ValueError):
            more = b""
        if more:
            raise SourceFault(Fault.GARBLED, "sent more bytes than were asked for")

    def dismiss(self, most_bytes: int) -> None:
        """Reads what nobody needs to its end if it is short, so that the connection can be used again.

        Raises:
            SourceFault: it broke off.
        """
        length = content_length(self._response.headers)
        try:
            whole = length is not None and length <= most_bytes and self.read_all(length) is not None
        except BaseException:
            self.discard()
            raise
        if whole:
            self.release()
        else:
            self.discard()

    def release(self) -> None:
        """All was read: the connection goes back to the pool."""
        if isinstance(self._below, http.client.HTTPResponse):
            # Before 3.11.8, `read1` leaves a reply open that it read to its end (cpython gh-113199).
            self._below.close()
        self._response.release_conn()

    def discard(self) -> None:
        """The connection is not used again: bytes of this reply may still be on it."""
        with contextlib.suppress(OSError, ValueError, urllib3.exceptions.HTTPError):
            self._response.close()

    def _wake(self) -> None:
        # Shutting down the reading side wakes a recv that blocks in the lane; closing would race with it.
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError, io.UnsupportedOperation):
            self._response.shutdown()


class _Unnoted:
    """A flow for bytes that are read past: nobody is told of them."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def slice_bytes(self) -> int:
        return self._flow.slice_bytes()

    def advance(self, size_bytes: int) -> None:
        return

    def on_cancel(self, wake: Callable[[], None]) -> None:
        self._flow.on_cancel(wake)
