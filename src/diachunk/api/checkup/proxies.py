"""What stands between this machine and servers: proxies, certificates, the clock."""

from __future__ import annotations

import ipaddress
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from diachunk.api.checkup.base import Area, Finding, Level, Patient, age, as_root
from diachunk.sources.connections import proxy_for

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_CONNECT_S = 2.5
_CLOCK_WRONG_S = 300.0


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.NETWORK, what, cure)


def proxies(patient: Patient) -> Iterator[Finding]:
    """Whether the proxies of the environment answer, and are not in the way of private names."""
    named = {kind: text for kind, text in getproxies().items() if kind in ("http", "https", "all") and text}
    for text in dict.fromkeys(named.values()):
        kinds = [kind for kind, each in named.items() if each == text]
        yield _answers(text, kinds, patient)
    for text in patient.origins:
        host = urlsplit(text).hostname or ""
        if text.startswith(("http://", "https://")) and proxy_for(text) and _is_private(host):
            variable = "no_proxy" if patient.environment.get("no_proxy") else "NO_PROXY"
            value = f"{patient.environment[variable]},{host}" if patient.environment.get(variable) else host
            what = f"{host} is private, but requests for it go through the proxy {_bare(proxy_for(text))}"
            yield _found(Level.WARNING, what, f"export {variable}={shlex.quote(value)}")
    if not named:
        yield _found(Level.OK, "no proxy is set")


def _bare(proxy: str) -> str:
    """HOST:PORT, without the login."""
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}").netloc.rpartition("@")[2]


def _answers(text: str, kinds: list[str], patient: Patient) -> Finding:
    variables = [
        name
        for kind in kinds
        for name in (f"{kind}_proxy", f"{kind}_proxy".upper())
        if name in patient.environment
    ]
    cure = f"unset {' '.join(variables)}" if variables else "# correct it in this system's network settings"
    where = f"{' and '.join(variables[:2]) or 'the system'}: the proxy {_bare(text)}"
    try:
        split = urlsplit(text if "://" in text else f"http://{text}")
        host, port = split.hostname, split.port or {"http": 80, "https": 443}.get(split.scheme, 0)
    except ValueError:
        host, port, split = None, 0, urlsplit("http:")
    if split.scheme not in ("http", "https"):
        return _found(Level.FAULT, f"{where} is a {split.scheme} proxy, which diachunk cannot use", cure)
    if not host:
        return _found(Level.FAULT, f"{where} is no HOST:PORT", cure)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_S).close()
    except OSError as error:
        why = (
            "host name not found"
            if isinstance(error, socket.gaierror)
            else error.strerror or "no answer in time"
        )
        return _found(Level.FAULT, f"{where} does not answer: {why}", cure)
    return _found(Level.OK, f"{where} answers")


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_global
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan", ".localhost", ".home.arpa"))


def certificates(patient: Patient) -> Iterator[Finding]:
    """Whether the variables that name certificates name files."""
    wrong = False
    for variable in _CA_VARIABLES:
        file = patient.environment.get(variable)
        if not file:
            continue
        if not Path(file).is_file():
            what = f"{variable} is {file}, which is not there: every https request fails"
        elif not os.access(file, os.R_OK):
            what = f"{variable} is {file}, which cannot be read: every https request fails"
        elif b"-----BEGIN" not in _start_of(file):
            what = f"{variable} is {file}, which holds no certificate: every https request fails"
        else:
            continue
        wrong = True
        yield _found(Level.FAULT, what, f"unset {variable}")
    if not wrong:
        used = next((name for name in _CA_VARIABLES if patient.environment.get(name)), "")
        yield _found(Level.OK, f"certificates: those of {used or 'the system'}")


def _start_of(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(1024 * 1024)


def clock(patient: Patient) -> Iterator[Finding]:
    """Whether this machine's time is that of the servers it heard from. Runs when these have answered."""
    if not patient.clocks:
        return
    host, ahead = min(patient.clocks, key=lambda each: abs(each[1]))  # one server may be wrong itself
    if abs(ahead) <= _CLOCK_WRONG_S:
        yield _found(Level.OK, "the clock agrees with that of " + host)
        return
    direction = "behind" if ahead > 0 else "ahead of"
    what = f"this machine's clock is {age(abs(ahead))} {direction} that of {host}: https refuses certificates by it"
    yield _found(
        Level.WARNING,
        what,
        as_root("timedatectl set-ntp true") + "  # on macOS: sudo sntp -sS time.apple.com",
    )
