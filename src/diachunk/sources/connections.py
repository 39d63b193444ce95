"""Connections of one origin: pooled, through the user's proxies, with the system's certificates."""

from __future__ import annotations

import base64
import http.client
import netrc
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout, make_headers

from diachunk.schedule.health import Fault
from diachunk.sources.base import Flow, SourceFault
from diachunk.sources.context import SourceContext
from diachunk.sources.wakeable import (
    HTTPPool,
    HTTPSPool,
    PrivateAddress,
    PublicHTTPPool,
    PublicHTTPSPool,
    refuse_private_name,
    waiting,
)
from diachunk.version import __version__

_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"diachunk/{__version__}"}
_NO_TUNNEL = "Tunnel connection failed: "
"""How http.client begins what a proxy answered when it was asked for a tunnel."""
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Connections:
    """A pool for direct connections and one for each proxy that the environment names; with `direct` no proxy."""

    def __init__(self, context: SourceContext, *, direct: bool = False) -> None:
        self._context = context
        self._direct = direct
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._proxies: dict[tuple[str, str], str] = {}
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._timeout = Timeout(connect=context.limits.connect_timeout_s, read=context.limits.stall_s)

    def get(self, url: str, headers: Mapping[str, str], flow: Flow) -> BaseHTTPResponse:
        """Sends one GET and returns the reply, its body unread. Redirects are the caller's.

        Raises:
            SourceFault: no reply, or it was stopped.
        """
        flow.slice_bytes()
        try:
            return self._get(url, {**_HEADERS, **headers}, flow)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            flow.slice_bytes()  # when it was stopped, that is the reason
            raise fault_of(error) from error

    def _get(self, url: str, headers: dict[str, str], flow: Flow) -> BaseHTTPResponse:
        pool = self._pool_for(url)
        waiting.flow = flow
        try:
            return self._send(pool, url, headers)
        except urllib3.exceptions.ProtocolError as error:
            # A kept-alive connection that the server closed just now is no fault: once more, on a fresh one.
            if isinstance(error, urllib3.exceptions.IncompleteRead) or not _closed_before_reply(error):
                raise
            flow.slice_bytes()
            return self._send(pool, url, headers)
        finally:
            waiting.flow = None

    def _send(self, pool: urllib3.PoolManager, url: str, headers: dict[str, str]) -> BaseHTTPResponse:
        return pool.request(
            "GET",
            url,
            headers=headers,
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
            timeout=self._timeout,
        )

    def _pool_for(self, url: str) -> urllib3.PoolManager:
        split = urlsplit(url)
        host = split.hostname or ""
        with self._lock:
            # Asked once: it reads the whole environment twice, 90 microseconds of a request's 300.
            proxy = self._proxies.get((split.scheme, host))
        if proxy is None and self._direct:
            proxy = ""
        elif proxy is None:
            proxy = proxy_for(url)
            if proxy and not self._context.named_by_user:
                refuse_private_name(host)
        with self._lock:
            self._proxies[split.scheme, host] = proxy
            if proxy not in self._pools:
                self._pools[proxy] = self._make_pool(proxy)
            if split.scheme == "https" and self._tls is None:
                self._tls = _tls_context()
                for pool in self._pools.values():
                    pool.connection_pool_kw["ssl_context"] = self._tls
            return self._pools[proxy]

    def _make_pool(self, proxy: str) -> urllib3.PoolManager:
        options: dict[str, Any] = {"maxsize": self._context.limits.lanes_max, "block": False}
        if self._tls is not None:
            options["ssl_context"] = self._tls
        pool = _proxy_pool(proxy, options) if proxy else urllib3.PoolManager(**options)
        if proxy or self._context.named_by_user:
            pool.pool_classes_by_scheme = {"http": HTTPPool, "https": HTTPSPool}
        else:
            pool.pool_classes_by_scheme = {"http": PublicHTTPPool, "https": PublicHTTPSPool}
        return pool

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.clear()


def _proxy_pool(proxy: str, options: dict[str, Any]) -> urllib3.PoolManager:
    split = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if split.scheme not in ("http", "https"):
        raise SourceFault(Fault.FAILED, f"cannot use a {split.scheme} proxy", resumable=False)
    login = None
    if split.username:
        login = make_headers(proxy_basic_auth=f"{split.username}:{split.password or ''}")
    bare = urlunsplit(split._replace(netloc=split.netloc.rpartition("@")[2]))
    return urllib3.ProxyManager(bare, proxy_headers=login, **options)


def _tls_context() -> ssl.SSLContext:
    cafile = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), None)
    try:
        return ssl.create_default_context(cafile=cafile)
    except (OSError, ssl.SSLError) as error:
        raise SourceFault(Fault.FAILED, f"cannot read certificates from {cafile}: {error}") from error


def credentials_for(host: str) -> str | None:
    """The Authorization header that the user's netrc holds for this very host, or None."""
    try:
        entry = netrc.netrc(os.environ.get("NETRC") or None).hosts.get(host)
    except (OSError, netrc.NetrcParseError, RuntimeError, ValueError):
        return None
    if entry is None:
        return None
    login, _, password = entry
    # RFC 7617, 2.1: UTF-8, which urllib3's own helper does not do.
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode("ascii")


def _closed_before_reply(error: urllib3.exceptions.ProtocolError) -> bool:
    reasons = [each for each in error.args if isinstance(each, BaseException)]
    return any(isinstance(each, http.client.RemoteDisconnected) for each in reasons)


def proxy_for(url: str) -> str:
    """The proxy that the environment names for a request to a URL; "" for none."""
    split, proxies = urlsplit(url), getproxies()
    return "" if proxy_bypass(split.hostname or "") else proxies.get(split.scheme, proxies.get("all", ""))


def fault_of(error: BaseException, *, resumable: bool = False) -> SourceFault:
    """What a library's error means, in words for a person."""
    if isinstance(error, SourceFault):
        return error
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for arg in [arg for each in list(chain) for arg in each.args if isinstance(arg, BaseException)]:
        chain.append(arg)
    through_proxy = any(isinstance(each, urllib3.exceptions.ProxyError) for each in chain)
    for each in chain:
        detail = _words_for(each)
        if detail:
            detail = f"the proxy: {detail}" if through_proxy else detail
            stalled = isinstance(each, (TimeoutError, urllib3.exceptions.ReadTimeoutError)) and resumable
            kind = Fault.STALLED if stalled else Fault.FAILED
            if isinstance(each, PrivateAddress):
                kind = Fault.DENIED  # asking again changes nothing
            return SourceFault(kind, detail, resumable=resumable)
    return SourceFault(Fault.FAILED, f"{type(error).__name__}: {error}"[:160], resumable=resumable)


def _words_for(error: BaseException) -> str:
    """One error of the chain in words, or "" to look further along it."""
    if isinstance(error, urllib3.exceptions.NewConnectionError) and error.__cause__ is not None:
        return ""  # a ConnectTimeoutError by its class whatever happened: its cause knows better
    known: tuple[tuple[type[BaseException], str], ...] = (
        (PrivateAddress, str(error)),
        (ssl.SSLCertVerificationError, f"certificate refused: {getattr(error, 'verify_message', '')}"),
        (socket.gaierror, _unresolved(error)),
        (urllib3.exceptions.NameResolutionError, "host name not found"),
        (ConnectionRefusedError, "connection refused"),
        (http.client.RemoteDisconnected, "closed the connection without a reply"),
        (ConnectionResetError, "connection reset"),
        (BrokenPipeError, "connection reset"),
        (http.client.IncompleteRead, "closed the connection early"),
        (urllib3.exceptions.ConnectTimeoutError, "no connection in time"),
        (urllib3.exceptions.ReadTimeoutError, "no answer in time"),
        (urllib3.exceptions.LocationParseError, "not a URL"),
        (TimeoutError, "no data in time"),
        (ssl.SSLError, f"TLS failed: {getattr(error, 'reason', '') or error}"),
        (http.client.BadStatusLine, "does not speak HTTP"),
    )
    for kind, words in known:
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, OSError) and str(error).startswith(_NO_TUNNEL):
        return str(error).removeprefix(_NO_TUNNEL)  # what the proxy answered to CONNECT, such as 407
    return ""


def _unresolved(error: BaseException) -> str:
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return "host name not found: no name server answers (no network?)"
    return "host name not found"
