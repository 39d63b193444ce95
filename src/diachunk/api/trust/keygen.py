"""ssh-keygen, which makes and checks signatures: so that keys, agents and security keys work as with git and ssh."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from diachunk.errors import TrustError

CHECK_S = 20.0
SIGN_S = 300.0
"""Somebody may have to find a security key, or remember a passphrase."""
_TOOL = "ssh-keygen"
_NAMELESS = "No user exists for uid"
"""What OpenSSH says where /etc/passwd does not name the user: in a container that runs as any number."""
_SAID_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What it said. `said` is its last words on stderr; "" where the terminal has them."""

    succeeded: bool
    out: str
    said: str


def tool() -> str:
    """The path of ssh-keygen.

    Raises:
        TrustError: it is not installed.
    """
    path = shutil.which(_TOOL)
    if path is None:
        raise TrustError(
            "signatures need ssh-keygen (OpenSSH 8.2 or later), which is not installed here",
            hint="apt install openssh-client, or what your system calls it",
        )
    return path


def run(words: Sequence[str], data: bytes, *, timeout_s: float, on_terminal: bool = False) -> Answer:
    """Runs ssh-keygen with `data` on its stdin.

    Args:
        on_terminal: let it talk to the person there: "Confirm user presence" is of no use to a log.

    Raises:
        TrustError: it is not installed, cannot be started, takes too long, or does not run for this user.
    """
    command = [tool(), *words]
    try:
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=None if on_terminal else subprocess.PIPE,
            timeout=timeout_s,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise TrustError(f"ssh-keygen took longer than {timeout_s:.0f} s") from error
    except (OSError, ValueError) as error:
        raise TrustError(f"cannot run ssh-keygen: {error}") from error
    lines = (done.stderr or b"").decode("utf-8", "replace").split("\n")
    said = "; ".join(line.strip() for line in lines if line.strip())
    if done.returncode != 0 and _NAMELESS in said:
        # Else it would look as if the signature did not count.
        raise TrustError(
            f"ssh-keygen, which signatures need, does not run for a user without a name: {said[-_SAID_CHARS_MAX:]}",
            hint=f"a line in /etc/passwd gives it one: someone:x:{os.geteuid()}:{os.getegid()}::/:/usr/sbin/nologin",
        )
    return Answer(done.returncode == 0, done.stdout.decode("utf-8", "replace"), said[-_SAID_CHARS_MAX:])
