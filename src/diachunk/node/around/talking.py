"""Asks another node: one bounded request. Never through a proxy, never on to where it redirects (P14, P15)."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from yarl import URL

from diachunk.errors import printable, redact
from diachunk.limits import KiB, Limits
from diachunk.node.model import Address
from diachunk.sources.secret import WANTS_SECRET, Secret, apart
from diachunk.version import __version__

HEADER_BYTES_MAX = 16 * KiB
_LINE_BYTES_MAX = 8 * KiB
_HEADERS_MAX = 64
_READ_BYTES = 64 * KiB
LINES = "application/x-ndjson"
_LINES_AHEAD = 16
_CONNECTIONS_MAX = 256
_KEEP_S = 45.0
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"diachunk/{__version__}"}


class Unreached(Exception):
    """A node gave no answer of use. Caught where it is known what that means.

    Attributes:
        detail: what it did, in words for people.
        lies: it spoke, but not as a node does.
    """

    def __init__(self, detail: str, *, lies: bool = False) -> None:
        self.detail = printable(redact(detail))[:160]
        self.lies = lies
        super().__init__(self.detail)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end.

    Attributes:
        seconds: from the request to the answer's header.
        retry_after_s: of a 503.
        in_lines: it came line by line, and was taken.
        refusal: of a 401: what it wants, and as far as can be told from here why it was not content.
    """

    status: int
    body: bytes
    seconds: float
    retry_after_s: float = 0.0
    in_lines: bool = False
    refusal: str = ""


class Talker:
    """Connections to other nodes, kept alive between requests. On one loop."""

    def __init__(
        self, limits: Limits, secret: Secret | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self._limits = limits
        self._secret = secret
        self._now = now
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Must be called on the loop that asks."""
        options: dict[str, Any] = {}
        if "max_headers" in inspect.signature(aiohttp.ClientSession.__init__).parameters:
            options["max_headers"] = _HEADERS_MAX
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, keepalive_timeout=_KEEP_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_READ_BYTES,
            max_line_size=_LINE_BYTES_MAX,
            max_field_size=_LINE_BYTES_MAX,
            **options,
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def authorize(self, address: Address) -> Callable[[str, str], str | None] | None:
        """What `PeerSource` proves itself with to that address."""
        secret = self._secret
        if secret is None:
            return None
        return lambda method, target: secret.proof(method, target, str(address), self._now())

    async def ask(
        self,
        address: Address,
        target: str,
        *,
        limit_bytes: int,
        body: bytes | None = None,
        wait_s: float = 0.0,
        grows: bool = False,
        take: Callable[[bytes], None] | None = None,
    ) -> Reply:
        """GETs, or POSTs `body` as JSON. Statuses other than 200 and redirects are answers as well.

        Args:
            target: path and query.
            limit_bytes: of the answer's body.
            wait_s: how long the answer may rightly take to begin (P5).
            grows: the body may be large; then it may take longer, as long as it keeps coming.
            take: given each line of an answer in lines (P5, `follow`) as it comes, of `limit_bytes` at most; the
                reply is then without a body. What it raises ends the answer.

        Raises:
            Unreached: no answer within the bounds.
        """
        limits = self._limits
        within_s = wait_s + limits.stall_s + (limits.patience_s * 4 if grows else 0.0)
        try:
            async with asyncio.timeout(within_s):
                return await self._exchange(address, target, limit_bytes, body, wait_s + limits.stall_s, take)
        except TimeoutError as error:
            raise Unreached("no answer in time") from error
        except aiohttp.ClientConnectorError as error:
            raise Unreached(_words_of(error.os_error)) from error
        except aiohttp.ServerDisconnectedError as error:
            raise Unreached("closed the connection") from error
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            raise Unreached(f"does not speak HTTP ({_first_line(error)})", lies=True) from error
        except aiohttp.ClientError as error:
            raise Unreached(f"{type(error).__name__}: {_first_line(error)}") from error
        except OSError as error:
            raise Unreached(_words_of(error)) from error
        except ValueError as error:
            raise Unreached(f"not to be understood ({_first_line(error)})", lies=True) from error

    async def _exchange(
        self,
        address: Address,
        target: str,
        limit_bytes: int,
        body: bytes | None,
        stall_s: float,
        take: Callable[[bytes], None] | None,
    ) -> Reply:
        if self._session is None:
            raise Unreached("not started")
        method = "GET" if body is None else "POST"
        headers = dict(_HEADERS)
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._secret is not None:
            headers["Authorization"] = self._secret.proof(method, target, str(address), self._now())
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._limits.connect_timeout_s, sock_read=stall_s
        )
        url = URL(f"http://{address}{target}", encoded=True)
        began_at = time.monotonic()
        async with self._session.request(
            method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            seconds = time.monotonic() - began_at
            _check_head(response)
            if take is not None and response.status == 200 and response.content_type == LINES:
                await self._lines(response, limit_bytes, take)
                return Reply(response.status, b"", seconds, in_lines=True)
            data = await self._body(response, limit_bytes)
            refusal = self._refusal(response) if response.status == 401 else ""
            return Reply(response.status, data, seconds, _retry_after_s(response), refusal=refusal)

    def _refusal(self, response: aiohttp.ClientResponse) -> str:
        """A clock that is wrong looks like a wrong secret over there; the Date header tells them apart."""
        if self._secret is None:
            return f"{WANTS_SECRET}; this machine has none"
        try:
            there_s = parsedate_to_datetime(response.headers.get("Date", "")).timestamp()
        except (ValueError, OverflowError, OSError):
            return WANTS_SECRET
        wrong = apart(there_s - self._now())
        return f"{WANTS_SECRET}, and {wrong}" if wrong else f"{WANTS_SECRET}; this machine has another"

    async def _lines(
        self, response: aiohttp.ClientResponse, limit_bytes: int, take: Callable[[bytes], None]
    ) -> None:
        began_at, count, rest = time.monotonic(), 0, b""
        try:
            async for piece in response.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n") if rest else piece.split(b"\n")
                count += len(lines)
                if len(rest) > limit_bytes or any(len(each) > limit_bytes for each in lines):
                    raise Unreached(f"sends more than {limit_bytes:,} bytes", lies=True)
                if count > _LINES_AHEAD + 2 * (time.monotonic() - began_at) / self._limits.have_interval_s:
                    raise Unreached("sends news all the time", lies=True)
                for each in lines:
                    take(each)
        except aiohttp.ClientPayloadError as error:  # a machine that goes says no good-bye
            raise Unreached("closed the connection") from error

    async def _body(self, response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
        if (response.content_length or 0) > limit_bytes:
            raise Unreached(
                f"announces {response.content_length:,} bytes; {limit_bytes:,} is the most", lies=True
            )
        pieces: list[bytes] = []
        size = noted = 0
        noted_at = time.monotonic()
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > limit_bytes:
                raise Unreached(f"sends more than {limit_bytes:,} bytes", lies=True)
            pieces.append(piece)
            now = time.monotonic()
            if now - noted_at >= self._limits.stall_s:
                if size - noted < self._limits.min_rate_bps * (now - noted_at):
                    raise Unreached("sends too slowly")
                noted, noted_at = size, now
        return b"".join(pieces)


def _check_head(response: aiohttp.ClientResponse) -> None:
    if sum(len(name) + len(value) + 4 for name, value in response.raw_headers) > HEADER_BYTES_MAX:
        raise Unreached(f"sends more than {HEADER_BYTES_MAX:,} bytes of headers", lies=True)
    if 300 <= response.status < 400:
        where = response.headers.get("Location", "")[:400]
        raise Unreached(f"redirects to {where!r:.80}, where no peer may lead", lies=True)
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise Unreached("sends it encoded although identity was asked", lies=True)


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text[:6]) if text.isascii() and text[:6].isdigit() else 0.0


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:80] or type(error).__name__


def _words_of(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return (error.strerror or _first_line(error)).lower()
