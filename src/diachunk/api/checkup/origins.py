"""Each configured origin: does its name resolve, does it answer, with files, and in ranges."""

from __future__ import annotations

import email.utils
import functools
import shlex
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from urllib3.response import BaseHTTPResponse

from diachunk.api.checkup.base import Area, Check, Finding, Level, Patient, age, quoted
from diachunk.api.checkup.contents import open_store
from diachunk.api.context import bundled_manifests
from diachunk.errors import UsageError
from diachunk.limits import DEFAULT
from diachunk.schedule.health import Fault
from diachunk.sources.base import SourceFault
from diachunk.sources.connections import proxy_for
from diachunk.sources.context import SourceContext, split_url
from diachunk.sources.directory import DirectoryOrigin
from diachunk.sources.http import HttpOrigin
from diachunk.sources.reply import is_page, parse_content_range, retry_after_s
from diachunk.sources.template import OriginTemplate
from diachunk.within import within

NETWORK_S = 6.0
"""All of the network checks together: they run side by side."""
_WAIT_S = 2.5
_STORE_S = 1.5
_ASKED_MAX = 3
_ASKED_FOR = "bytes=1-1"
_CAPTIVE = "a login page, or a network that wants you to sign in, stands in between"


def found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.NETWORK, what, cure)


class BriefFlow:
    """The flow of a request of which nothing but the head is read."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def slice_bytes(self) -> int:
        if time.monotonic() > self._until:
            raise SourceFault(Fault.STALLED, "no answer in time")
        return 1

    def advance(self, size_bytes: int) -> None:
        self.slice_bytes()

    def on_cancel(self, wake: Callable[[], None]) -> None:
        return


def context() -> SourceContext:
    """The engine's own way to a server (proxies, certificates, logins), with short waits."""
    return SourceContext(replace(DEFAULT, connect_timeout_s=_WAIT_S, stall_s=_WAIT_S, redirects_max=5))


def checks(patient: Patient) -> list[Check]:
    """One check an origin, so that each has a thread of its own."""
    return [functools.partial(origin, text) for text in dict.fromkeys(patient.origins)]


def origin(text: str, patient: Patient) -> Iterator[Finding]:
    """One origin, whatever kind of one it is."""
    if not text.startswith(("http://", "https://")):
        yield from _directory(text)
        return
    try:
        opened, split = HttpOrigin(text, context()), split_url(text)
    except UsageError as error:
        yield found(Level.FAULT, error.message, "diachunk config  # says which file or variable has it")
        return
    try:
        if problem := unreachable(split.hostname or "", text):
            yield problem
            return
        yield from _ask(opened, text, patient)
    finally:
        opened.close()


def unreachable(host: str, url: str) -> Finding | None:
    """What keeps a host's name from being resolved here; a proxy would resolve it itself."""
    if proxy_for(url):
        return None
    try:
        within(_WAIT_S, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except TimeoutError:
        cure = "cat /etc/resolv.conf  # the name server there does not answer"
        return found(Level.FAULT, f"{host}: name resolution gave no answer in {_WAIT_S:g} s", cure)
    except (OSError, UnicodeError):
        cure = f"getent hosts {shlex.quote(host)}  # misspelt? is a proxy needed: export https_proxy=..."
        return found(Level.FAULT, f"{host}: host name not found", cure)
    return None


def _directory(text: str) -> Iterator[Finding]:
    if "://" in text and not text.startswith("file://"):
        return  # a plug-in's business
    try:
        there = DirectoryOrigin(text, context()).exists()
    except UsageError as error:
        yield found(Level.FAULT, error.message, "diachunk config  # says which file or variable has it")
        return
    if there:
        yield found(Level.OK, f"origin {text}: a directory, there")
    else:
        path = urlsplit(text).path if "://" in text else text
        what = f"origin {text}: no such directory; is it mounted?"
        yield found(
            Level.FAULT,
            what,
            f"mount {quoted(Path(path))}  # or take it out: diachunk config says where it is set",
        )


def _ask(opened: HttpOrigin, text: str, patient: Patient) -> Iterator[Finding]:
    try:
        files = within(_STORE_S, lambda: [*_likely(patient)])
    except TimeoutError:  # the store hangs: its own group says so
        files = []
    try:
        yield from ask_file(opened, text, patient, files)
    except SourceFault as fault:
        yield from_fault(opened.label, fault, urlsplit(text).scheme)


def ask_file(
    opened: HttpOrigin, text: str, patient: Patient, files: Sequence[tuple[str, str]]
) -> Iterator[Finding]:
    """Asks for a byte of files that may be there, until one is.

    Args:
        files: (component, path); without any it is only asked whether somebody answers.

    Raises:
        SourceFault: no reply.
    """
    template = OriginTemplate(text)
    asked = [template.locate(component, path) for component, path in files]
    missing = ""
    for url in asked[:_ASKED_MAX] or [template.base]:
        with ask(opened, url, patient) as response:
            if response.status in (404, 410) and asked:
                missing = missing or urlsplit(url).path
                continue
            yield _judge(opened.label, response, text, is_file=bool(asked))
            return
    what = (
        f"{opened.label} answers, but has no checkpoint known here (404 for {missing}): is the prefix right?"
    )
    yield found(
        Level.WARNING, what, "diachunk config  # says where it is set; {component} and {path} may stand in it"
    )


def _likely(patient: Patient) -> Iterator[tuple[str, str]]:
    """(component, path) of the largest file of each checkpoint known here, those with names first."""
    store = open_store(patient)
    if store is not None:
        refs = {ref.manifest_id for ref in store.catalog.refs()}
        outlines = sorted(store.catalog.outlines(), key=lambda each: each.id not in refs)
        for outline in outlines[: 2 * _ASKED_MAX]:
            yield from _largest(
                (each.size, part.name, each.path) for part in outline.components for each in part.files
            )
    for manifest in bundled_manifests():
        yield from _largest((file.size, part.name, file.path) for part, file in manifest.walk())


def _largest(files: Iterable[tuple[int, str, str]]) -> Iterator[tuple[str, str]]:
    best = max(files, default=(0, "", ""))
    if best[0] > 1:
        yield best[1], best[2]


def ask(opened: HttpOrigin, url: str, patient: Patient) -> BaseHTTPResponse:
    """GETs one byte of a URL as a fetch would, reads only the head, and notes the host's clock.

    Raises:
        SourceFault: no reply.
    """
    response = opened.open_url(url, BriefFlow(NETWORK_S - 1), {"Range": _ASKED_FOR})
    heard = time.time()
    try:
        date = email.utils.parsedate_to_datetime(response.headers.get("Date", ""))
        patient.clocks.append((urlsplit(url).hostname or "", date.timestamp() - heard))
    except (ValueError, TypeError, OverflowError):
        pass
    return response


def from_fault(label: str, fault: SourceFault, scheme: str) -> Finding:
    """A request that brought no reply."""
    detail, cure = (
        fault.detail,
        f"curl -sSIv {shlex.quote(f'{scheme}://{label}')}  # is the server up? is a proxy needed?",
    )
    if "certificate refused" in detail:
        cure = "export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt  # or the file with your site's own authority"
        if "expired" in detail or "not yet valid" in detail:
            cure = (
                f"date  # is that right? If so, the certificate of {label.partition('/')[0]} is to be renewed"
            )
    elif "cannot read certificates" in detail:
        cure = "unset SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE"
    elif "proxy" in detail:
        cure = (
            "unset https_proxy HTTPS_PROXY http_proxy HTTP_PROXY all_proxy ALL_PROXY  # or set the right one"
        )
    elif scheme == "https" and ("WRONG_VERSION_NUMBER" in detail or "RECORD_LAYER" in detail):
        cure = f"diachunk config  # that server speaks plain http there: http://{label}?"
    return found(Level.FAULT, f"{label}: {detail}", cure)


def _judge(label: str, response: BaseHTTPResponse, text: str, *, is_file: bool) -> Finding:
    """What the head of a reply says."""
    status, headers = response.status, response.headers
    host = urlsplit(text).hostname or label
    if status in (401, 403):
        cure = f"echo 'machine {host} login USER password PASSWORD' >> ~/.netrc && chmod 600 ~/.netrc"
        return found(Level.FAULT, f"{label}: {status}, it wants a login, or refuses this one", cure)
    if status in (429, 503):
        wait = retry_after_s(headers)
        when = f"it asks to come back in {age(wait)}" if wait else "it does not say when to come back"
        return found(
            Level.WARNING,
            f"{label}: {status}, too busy or too many requests; {when}",
            f"sleep {wait or 60:.0f} && diachunk doctor",
        )
    if status >= 500 or status in (400, 407):
        return found(
            Level.FAULT,
            f"{label}: answers {status}",
            f"curl -sSI {shlex.quote(f'{urlsplit(text).scheme}://{label}')}",
        )
    if not is_file:
        return found(Level.OK, f"{label} answers ({status}); nothing is known here that could be asked of it")
    if is_page(headers):
        return found(
            Level.FAULT,
            f"{label} sent an HTML page, not the file: {_CAPTIVE}",
            f"curl -sSL {shlex.quote(str(response.url or text))} | head",
        )
    if status == 206:
        return _range_kept(label, headers.get("Content-Range", ""))
    if status == 200:
        what = f"{label} ignores Range: downloads from it cannot resume or go in parallel"
        return found(
            Level.WARNING,
            what,
            "diachunk fetch TARGET --origin URL  # with another mirror; or ranges on, at that server",
        )
    return found(
        Level.WARNING, f"{label}: answers {status} to a request for a byte of a file", "diachunk config"
    )


def _range_kept(label: str, content_range: str) -> Finding:
    try:
        first, last, _ = parse_content_range(content_range)
    except ValueError as error:
        return found(Level.WARNING, f"{label}: 206 with a bad Content-Range ({error})", "diachunk config")
    if (first, last) != (1, 1):
        return found(Level.WARNING, f"{label}: sends other bytes than those asked for", "diachunk config")
    return found(Level.OK, f"{label} answers, in ranges")
