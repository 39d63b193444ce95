"""Signing a manifest with an SSH key: in a file, in an agent, or on a security key."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path

from diachunk.api.trust.keygen import SIGN_S, run, tool
from diachunk.errors import TrustError, UsageError
from diachunk.manifest import Manifest
from diachunk.manifest.signed import NAMESPACE, Signature, message


def check_key(key: str | os.PathLike[str]) -> Path:
    """Whether there is something to sign with: known before the first of many gigabytes is read.

    Args:
        key: a private key's file; or a public key's, of which an agent or a security key has the private half.

    Raises:
        UsageError: no such file.
        TrustError: ssh-keygen is not installed.
    """
    text = os.fspath(key)
    if "\0" in text:
        raise UsageError(f"no such key: {text!r:.80}")
    path = Path(os.path.expanduser(text))
    tool()
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            return path
    except OSError as error:
        hint = f"make one with: ssh-keygen -t ed25519 -f {shlex.quote(str(path))}"
        raise UsageError(f"no such key: {path}", hint=hint) from error
    raise UsageError(f"{path} is no key: not a file")


def sign(manifest: Manifest, key: Path, serial: int) -> Signature:
    """Signs a manifest as it is. May ask for a passphrase on the terminal, or for a touch of a security key.

    Args:
        serial: Unix seconds; later than that of every version signed before.

    Raises:
        TrustError: it could not be signed; says what ssh-keygen said.
    """
    on_terminal = sys.stderr is not None and sys.stderr.isatty()
    words = ("-Y", "sign", "-n", NAMESPACE, "-f", str(key))
    answer = run(words, message(manifest, serial), timeout_s=SIGN_S, on_terminal=on_terminal)
    signature = Signature.read(Signature(serial, answer.out).entry()) if answer.succeeded else None
    if signature is None:
        why = f": {answer.said}" if answer.said else ""
        raise TrustError(
            f"{manifest.ref} could not be signed with {key}{why}",
            hint="is the passphrase right, the key in your agent (`ssh-add -l`), the security key plugged in?",
        )
    return signature
