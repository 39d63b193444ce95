"""An origin behind HTTP or HTTPS: ranges over keep-alive connections, redirects resolved once a file."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from urllib.parse import urljoin, urlsplit

from urllib3.response import BaseHTTPResponse

from diachunk.errors import StoreError, UsageError, redact
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import Run
from diachunk.sources.base import Flow, SourceFault, Stream
from diachunk.sources.body import Body, range_of
from diachunk.sources.connections import Connections, credentials_for
from diachunk.sources.context import SourceContext, split_url
from diachunk.sources.reply import REDIRECTS, check_stream, is_page, reason_of
from diachunk.sources.template import OriginTemplate

_LINK_WENT_STALE = frozenset({401, 403, 404, 410})
_WANTS_LOGIN = frozenset({401, 403, 404})
"""To strangers some say "not found" of what is private."""


class HttpOrigin:
    """Any HTTP(S) server. One request is one Range; bodies are read straight into the lane's buffer.

    Attributes:
        used_login: whether anything was had with the user's credentials for this host: then what came is not for
            everybody.
        on_login: called before anything of what was had so is read, on a lane's thread; StoreError fails the request.
    """

    tier = Tier.NETWORK
    used_login = False
    on_login: Callable[[], None] | None = None

    def __init__(
        self,
        url: str,
        context: SourceContext,
        *,
        locate: Callable[[str, str], str] | None = None,
        authorize: Callable[[], str | None] | None = None,
        login_first: bool = True,
    ) -> None:
        """`locate` says at which URL of this host a file (component, path) is, in place of the template's rule;
        `authorize`, asked with the first request, what the host is sent, in place of the netrc's. `login_first`: with
        the first request, rather than once the host refused one without: only then is it known to be needed.
        """
        split = split_url(url)
        if split.scheme not in ("http", "https") or not split.hostname:
            raise UsageError(f"origin {url}: not an http(s) URL")
        if split.username is not None or split.password is not None:
            raise UsageError(f"origin {url}: holds a login", hint="put it into ~/.netrc instead")
        self._template = OriginTemplate(url)
        self._locate = locate or self._template.locate
        self._host = split.netloc.lower()
        self._scheme = split.scheme
        self._limits = context.limits
        host = split.hostname if context.named_by_user else None
        self._authorize = authorize or (lambda: credentials_for(host) if host else None)
        self._logs_in = login_first
        self._connections = Connections(context)
        self._resolved: dict[str, str] = {}
        self._lock = threading.Lock()
        self.label = self._host + (split.path.rstrip("/") if "{" not in split.path else "")

    @cached_property
    def _authorization(self) -> str | None:
        return self._authorize()

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        first = run.offset + start
        response = self._open(run, flow, range_of(first, len(view)))
        body = Body(response, flow)
        if response.status in (404, 410):
            body.discard()
            asked = urlsplit(self._locate(run.blob.component, run.blob.path)).path
            raise SourceFault(Fault.MISSING, f"{reason_of(response.status)} ({asked})")
        body.read_range(view, first, run.blob.size)

    def stream(self, run: Run, flow: Flow) -> Stream:
        response = self._open(run, flow, {})
        body = Body(response, flow)
        try:
            check_stream(response.status, response.headers, run.blob.size)
        except BaseException:
            body.discard()
            raise
        return HttpStream(body)

    def close(self) -> None:
        self._connections.close()

    def _open(self, run: Run, flow: Flow, headers: Mapping[str, str]) -> BaseHTTPResponse:
        return self.open_url(self._locate(run.blob.component, run.blob.path), flow, headers)

    def open_url(self, first_url: str, flow: Flow, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Follows redirects to a reply, its body unread. The last stop is remembered while it answers.

        Raises:
            SourceFault: no reply, too many redirects, or one to where none may lead.
        """
        with self._lock:
            url = self._resolved.get(first_url, first_url)
        stale_allowed = url != first_url
        login = self._logs_in
        for _ in range(self._limits.redirects_max + 1):
            try:
                response = self._request(url, headers, flow, login=login)
            except SourceFault:
                # The mirror that a redirect led to may have died: ask the redirector where to go now.
                with self._lock:
                    self._resolved.pop(first_url, None)
                if not stale_allowed:
                    raise
                stale_allowed = False
                url = first_url
                continue
            if response.status in REDIRECTS and response.headers.get("Location"):
                response.close()
                url = self._next_stop(url, response.headers["Location"])
                continue
            if response.status in _LINK_WENT_STALE and stale_allowed:
                response.close()
                stale_allowed = False
                url = first_url
                continue
            if not login and self._refuses_strangers(response):
                response.close()
                login = True
                url = first_url
                continue
            if login and response.status < 400 and self._authorization:
                self._note_login(response)
            with self._lock:
                if url == first_url or response.status in _LINK_WENT_STALE:
                    self._resolved.pop(first_url, None)
                else:
                    self._resolved[first_url] = url
            return response
        raise SourceFault(Fault.FAILED, f"more than {self._limits.redirects_max} redirects")

    def _next_stop(self, here: str, location: str) -> str:
        try:
            url = urljoin(here, location)
            split = urlsplit(url)
            allowed = split.scheme in ("http", "https") and split.hostname and split.port != 0
        except ValueError as error:
            raise SourceFault(Fault.FAILED, f"redirects to {redact(location[:400]):.80}") from error
        if not allowed:
            raise SourceFault(Fault.FAILED, f"redirects to {redact(url[:400]):.80}")
        if self._scheme == "https" and split.scheme == "http":
            raise SourceFault(Fault.FAILED, f"redirects from https to plain http ({split.hostname})")
        return url

    def _refuses_strangers(self, response: BaseHTTPResponse) -> bool:
        """Whether a reply to a request without credentials makes it worth to send them."""
        refused = response.status in _WANTS_LOGIN or (response.status == 200 and is_page(response.headers))
        return refused and self._authorization is not None

    def _note_login(self, response: BaseHTTPResponse) -> None:
        """Before a byte of the reply is read: afterwards somebody might share it."""
        with self._lock:
            try:
                if not self.used_login and self.on_login is not None:
                    self.on_login()
            except StoreError as error:
                response.close()
                raise SourceFault(
                    Fault.DENIED, f"took a login, which cannot be noted: {error.message}"
                ) from error
            self.used_login = self._logs_in = True

    def _request(self, url: str, headers: Mapping[str, str], flow: Flow, *, login: bool) -> BaseHTTPResponse:
        split = urlsplit(url)
        ours = (split.scheme, split.netloc.lower()) == (self._scheme, self._host)
        if login and ours and self._authorization:
            headers = {**headers, "Authorization": self._authorization}
        return self._connections.get(url, headers, flow)


class HttpStream:
    """`Stream` over one reply's body."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def read_into(self, view: memoryview, flow: Flow) -> None:
        self._body.read_into(view)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._body.discard()
