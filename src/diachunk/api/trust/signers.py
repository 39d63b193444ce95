"""Whose signatures count, and whether a manifest bears one: OpenSSH's allowed_signers file decides."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diachunk.api.trust.keygen import CHECK_S, run
from diachunk.config import Config
from diachunk.errors import TrustError
from diachunk.manifest import Manifest
from diachunk.manifest.signed import NAMESPACE, Signature, message, signatures_of

CLOCK_SKEW_S = 86400
"""Signed later than this from now: a clock is wrong, and believing it would make all later versions look old."""
_PRINCIPALS_MAX = 8


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that holds: by whom (the principal's name in allowed_signers), and when."""

    principal: str
    signature: Signature

    @property
    def serial(self) -> int:
        return self.signature.serial

    @property
    def when(self) -> str:
        """For people."""
        return moment(self.serial)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a manifest's signatures: the latest that holds, else None and why none does."""

    signed: Signed | None
    why: str = ""


def moment(serial: int) -> str:
    """A serial for people."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(serial))
    except (OverflowError, ValueError, OSError):
        return f"second {serial}"


class Signers:
    """The signers that this machine trusts."""

    def __init__(self, allowed: Path) -> None:
        """Takes the file's path.

        Raises:
            TrustError: it cannot be read, or anybody may change it.
        """
        self._allowed = Path(os.path.abspath(allowed))
        try:
            with open(
                self._allowed, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
            ) as file:
                mode = os.fstat(file.fileno()).st_mode
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a path"
            raise TrustError(
                f"cannot read allowed_signers {allowed}: {why}",
                hint="a line for each signer: NAME ssh-ed25519 AAAA...; see ssh-keygen(1), ALLOWED SIGNERS",
            ) from error
        if not stat.S_ISREG(mode):
            raise TrustError(f"allowed_signers {allowed}: not a file")
        if mode & stat.S_IWOTH:
            raise TrustError(f"allowed_signers {allowed}: anybody may change it", hint=f"chmod o-w {allowed}")

    @classmethod
    def of(cls, config: Config) -> Signers | None:
        """Those of the settings; None where nobody is named."""
        return None if config.allowed_signers is None else cls(config.allowed_signers)

    @property
    def label(self) -> str:
        return str(self._allowed)

    def judge(self, manifest: Manifest, now: float | None = None) -> Verdict:
        """Looks for the latest signature that holds, was made by somebody in the file, and not in the future.

        Raises:
            TrustError: ssh-keygen is not installed, or does not come to an end.
        """
        why = f"{manifest.ref} is not signed"
        latest = (time.time() if now is None else now) + CLOCK_SKEW_S
        for signature in signatures_of(manifest):
            if signature.serial > latest:
                why = f"{manifest.ref} says it was signed on {moment(signature.serial)}, which is yet to come"
                continue
            principal, said = self._check(manifest, signature)
            if principal:
                return Verdict(Signed(principal, signature))
            why = said
        return Verdict(None, why)

    def _check(self, manifest: Manifest, signature: Signature) -> tuple[str, str]:
        """Who made it, or "" and why it does not count."""
        # A directory that nobody else may enter; its files' contents are the stranger's, their names are not.
        with tempfile.TemporaryDirectory(prefix="diachunk-") as directory:
            path = os.path.join(directory, "signature")
            with open(path, "x", encoding="ascii") as file:
                file.write(signature.armour)
            files = ("-f", self.label, "-s", path)
            found = run(("-Y", "find-principals", *files), b"", timeout_s=CHECK_S)
            data = message(manifest, signature.serial)
            why = f"{manifest.ref} is signed, but by nobody in {self.label}"
            for principal in _principals(found.out) if found.succeeded else ():
                words = ("-Y", "verify", "-n", NAMESPACE, "-I", principal, *files)
                if run(words, data, timeout_s=CHECK_S).succeeded:
                    return principal, ""
                why = f"the signature on {manifest.ref} by {principal} does not hold for it"
        return "", why


def _principals(out: str) -> Iterator[str]:
    """Names, one a line. They are of the user's own file; a negated pattern is nobody."""
    names = (line.strip() for line in out.split("\n")[:_PRINCIPALS_MAX])
    return (each for each in names if each and not each.startswith(("!", "-")))
