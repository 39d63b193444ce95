"""Fetches one small document (a manifest) whole, with a cap on its size and on the waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable

from diachunk.errors import ManifestError, TransferIncomplete
from diachunk.limits import KiB
from diachunk.schedule.health import Fault
from diachunk.sources.base import SourceFault
from diachunk.sources.body import Body
from diachunk.sources.context import SourceContext
from diachunk.sources.http import HttpOrigin
from diachunk.sources.reply import check_status, is_page

_SLICE_BYTES = 256 * KiB


class _Deadline:
    """The flow of a request that nobody schedules: it must only not take for ever."""

    def __init__(self, seconds: float) -> None:
        self._wake: Callable[[], None] | None = None
        self._over = threading.Event()
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True
        self._timer.start()

    def slice_bytes(self) -> int:
        if self._over.is_set():
            raise SourceFault(Fault.STALLED, "takes too long")
        return _SLICE_BYTES

    def advance(self, size_bytes: int) -> None:
        self.slice_bytes()

    def on_cancel(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        if self._over.is_set():
            wake()

    def _expire(self) -> None:
        self._over.set()
        if self._wake is not None:
            self._wake()

    def close(self) -> None:
        self._timer.cancel()


def fetch_document(
    url: str, context: SourceContext, limit_bytes: int, on_login: Callable[[], None] | None = None
) -> bytes:
    """GETs `url`.

    Args:
        on_login: called if it took the user's credentials for that host.

    Raises:
        TransferIncomplete: it did not come.
        ManifestError: it is larger than `limit_bytes`.
        UsageError: not an http(s) URL.
    """
    origin = HttpOrigin(url, context, login_first=False)
    origin.on_login = on_login
    flow = _Deadline(context.limits.patience_s * 4)
    try:
        response = origin.open_url(url, flow, {})
        body = Body(response, flow)
        try:
            check_status(response.status, response.headers)
            if is_page(response.headers):
                raise SourceFault(Fault.GARBLED, f"an HTML page came back ({_page_of(url)})")
            data = body.read_all(limit_bytes)
        finally:
            body.discard()
    except SourceFault as fault:
        raise TransferIncomplete(
            f"cannot get {url}: {fault.detail}", hint="`diachunk doctor` looks at the network"
        ) from fault
    finally:
        flow.close()
        origin.close()
    if data is None:
        raise ManifestError(f"{url} is over {limit_bytes:,} bytes: no manifest")
    return data


def _page_of(url: str) -> str:
    if url.endswith("/"):
        return "a listing? give the manifest's own URL, such as https://HOST/dia.json"
    return "a login page? a captive portal?"
