"""The lab's secret: who knows it may ask, and who asks proves it without sending it. P13 of docs/protocol.md."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import shlex
import stat
from pathlib import Path
from typing import Self

from diachunk.digest import derive_key, keyed_digest
from diachunk.errors import TrustError, UsageError

CLOCK_SKEW_S = 600
"""How far two clocks may be apart, and so how long one proof is good for one request to one address."""
SECRET_CHARS_MIN = 16
_CONTEXT = "diachunk lab secret v1"
_FILE_BYTES_MAX = 4096
_HEADER_CHARS_MAX = 2 * _FILE_BYTES_MAX
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_PROOF = re.compile(r"(\d{1,12}):([0-9a-f]{64})", re.ASCII)
_ADDRESS = re.compile(r"\[?([0-9A-Fa-f:.]+)(?:%[^\]]*)?\]?:(\d{1,5})", re.ASCII)
WANTS_SECRET = "wants the lab's secret"
_ANOTHER = "it knows another secret"
_MAKE_ONE = "make one with: (umask 077; openssl rand -hex 32 > {path})"


class Secret:
    """Proves and checks knowledge of the secret, which it does not keep. Safe to share between threads."""

    __slots__ = ("_bearer", "_key")

    def __init__(self, value: bytes) -> None:
        """Takes the secret itself.

        Raises:
            UsageError: it is shorter than 16 characters, or no single line of text.
        """
        if len(value) < SECRET_CHARS_MIN:
            raise UsageError(f"a secret of under {SECRET_CHARS_MIN} characters can be guessed")
        if _CONTROL.search(value):
            raise UsageError("a secret is one line of text")
        self._key = derive_key(_CONTEXT, value)
        self._bearer = keyed_digest(self._key, value)

    def __repr__(self) -> str:
        return "Secret(…)"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads `token_file`: one line, without the white space around it.

        Raises:
            TrustError: others may read or change the file; the hint has the cure.
            UsageError: it cannot be read, or holds no secret.
        """
        value = _read_private(path).strip()
        try:
            return cls(value)
        except UsageError as error:
            hint = _MAKE_ONE.format(path=shlex.quote(str(path)))
            raise UsageError(f"token_file {path}: {error.message}", hint=hint) from error

    def proof(self, method: str, target: str, address: str, now: float) -> str:
        """The `Authorization` header of one request.

        Args:
            target: path and query as they stand in the request's first line.
            address: the IP address and port that are dialled: "10.0.0.7:8420", "[fd00::7]:8420".
            now: Unix seconds.
        """
        moment = int(now)
        return f"Diachunk {moment}:{self._mac(method, target, address, moment).hex()}"

    def check(self, header: str | None, method: str, target: str, address: str, now: float) -> bool:
        """Whether `why_not` has nothing to say."""
        return not self.why_not(header, method, target, address, now)

    def why_not(self, header: str | None, method: str, target: str, address: str, now: float) -> str:
        """What is wrong with a request's `Authorization` header, in words for the log; "" where it shows that its
        sender knows the secret. Never raises.

        Args:
            header: as it came, or None.
            target: as it stands in the request's first line, not decoded.
            address: the address and port that the connection came in on.
        """
        if header is None or len(header) > _HEADER_CHARS_MAX:
            return "it shows none"
        scheme, _, given = header.strip().partition(" ")
        if scheme.lower() == "bearer":
            # Compared as MACs, so that neither its length nor a common start can be timed.
            is_it = hmac.compare_digest(keyed_digest(self._key, _raw(given.strip())), self._bearer)
            return "" if is_it else _ANOTHER
        match = _PROOF.fullmatch(given.strip()) if scheme.lower() == "diachunk" else None
        if match is None:
            return "it shows none"
        moment = int(match[1])
        if not hmac.compare_digest(self._mac(method, target, address, moment), bytes.fromhex(match[2])):
            return _ANOTHER
        return apart(moment - now)

    def _mac(self, method: str, target: str, address: str, moment: int) -> bytes:
        return keyed_digest(self._key, _raw(f"{method} {target}\n{_plain(address)}\n{moment}"))


def apart(ahead_s: float) -> str:
    """What is wrong with another machine's clock, in words; "" where a proof between the two is good."""
    if abs(ahead_s) <= CLOCK_SKEW_S:
        return ""
    return f"its clock is {abs(ahead_s) / 60:.0f} min {'ahead' if ahead_s > 0 else 'behind'}"


def _raw(text: str) -> bytes:
    """The bytes of a header or target, whatever they decoded to."""
    return text.encode("utf-8", "surrogatepass")


def _plain(address: str) -> str:
    """The address in the one form that both ends know: without the zone, which differs from machine to machine, and
    an IPv4 address as such, also where a socket of both families shows it as IPv6.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        return address
    try:
        ip = ipaddress.ip_address(match[1])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return f"[{ip}]:{int(match[2])}"
        ip = ip.ipv4_mapped
    return f"{ip}:{int(match[2])}"


def _read_private(path: Path) -> bytes:
    """The bytes of a file that is nobody else's business.

    Its owner may be somebody else who lets a group read it: the secret of a site, owned by root, or one that an
    orchestrator mounts.
    """
    try:
        # O_NONBLOCK: a pipe in its place must not be waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            facts = os.fstat(file.fileno())
            data = file.read(_FILE_BYTES_MAX + 1) if stat.S_ISREG(facts.st_mode) else None
    except FileNotFoundError as error:
        raise UsageError(
            f"token_file {path}: not there", hint=_MAKE_ONE.format(path=shlex.quote(str(path)))
        ) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a path"
        raise UsageError(f"cannot read token_file {path}: {why}") from error
    if data is None:
        raise UsageError(f"token_file {path}: not a file")
    mode = stat.S_IMODE(facts.st_mode)
    is_ours = facts.st_uid == os.geteuid() != 0
    if mode & (0o077 if is_ours else 0o027):
        cure = f"chmod {600 if is_ours else 640} {shlex.quote(str(path))}"
        raise TrustError(f"token_file {path}: others may read or change it (mode {mode:04o})", hint=cure)
    if len(data) > _FILE_BYTES_MAX:
        raise UsageError(f"token_file {path}: over {_FILE_BYTES_MAX:,} bytes")
    return data
