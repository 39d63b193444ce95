"""The errors a caller can meet, each with the exit code of its family.

One line for a person: what happened, to which file and chunk, from which source, what to do next.
Library errors (urllib3, OSError) are mapped to these once, at the edge.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

_WORD = re.compile(r"\S+")
# A password may hold an unescaped "/", "?" or "#"; what follows a port is no password.
_LOGIN = re.compile(r"[^/?#]*@|[^/?#:@]*:(?!\d{0,5}[/?#]).*@")
_QUERY = re.compile(r"\?[^#]*")
_CLOSING = "'\"`)]}>,.;:"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def redact(text: str) -> str:
    """Takes userinfo and query strings out of every URL in `text`: both can hold credentials.

    Takes time linear in the text, which may come from a hostile server.
    """
    return _WORD.sub(_redact_word, text) if "://" in text else text


def _redact_word(match: re.Match[str]) -> str:
    rest = match[0]
    if "://" not in rest:
        return rest
    last_login = rest.rfind("@")
    done: list[str] = []
    while True:
        head, scheme_end, rest = rest.partition("://")
        done += [head, scheme_end]
        if not scheme_end:
            return "".join(done)
        position = len(match[0]) - len(rest)
        if position <= last_login and (login := _LOGIN.match(rest)):
            rest = rest[login.end() :]
        query_at = rest.find("?")
        if query_at >= 0 and "://" not in rest[:query_at] and (query := _QUERY.match(rest, query_at)):
            after = rest[query.end() :]
            # What closes the sentence around a URL at its end is no secret.
            closing = "" if after else query[0][len(query[0].rstrip(_CLOSING)) :]
            done.append(rest[:query_at] + "?…" + closing)
            rest = after


def printable(text: str) -> str:
    """Replaces control and bidirectional characters, so that untrusted text cannot steer a terminal, and lone
    surrogates, which no stream takes.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class DiachunkError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        exit_code: what the command line exits with.
        retryable: whether running the same thing again can succeed with nothing changed here.
        hint: what to do next, or "".
    """

    exit_code = 1
    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = printable(redact(message))
        self.hint = printable(redact(hint))
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(DiachunkError):
    """The request itself makes no sense: an unknown target, an origin that is no URL."""

    exit_code = 2


class ManifestError(DiachunkError):
    """A manifest breaks a rule of docs/manifest.md. `rule` is that rule's name there, such as "M4"."""

    exit_code = 3

    def __init__(self, message: str, *, rule: str = "", hint: str = "") -> None:
        self.rule = rule
        super().__init__(f"{message} [{rule}]" if rule else message, hint=hint)


class IntegrityError(DiachunkError):
    """Bytes are not what their digest says, and nothing mended them."""

    exit_code = 4


class TransferIncomplete(DiachunkError):
    """No usable source is left. What was verified is kept: run again to resume."""

    exit_code = 5
    retryable = True


class StoreError(DiachunkError):
    """The disk refused: no space, quota, read-only, permission, not a store, a newer store.

    Attributes:
        errno: the operating system's error number, or None.
    """

    exit_code = 6

    def __init__(self, message: str, *, hint: str = "", errno: int | None = None) -> None:
        self.errno = errno
        super().__init__(message, hint=hint)


class TrustError(DiachunkError):
    """A name, signer or peer is not trusted for what was asked of it."""

    exit_code = 7


class LoadError(DiachunkError):
    """Verified tensors could not be brought to the device or dtype asked for."""

    exit_code = 8


class Interrupted(DiachunkError):
    """The user stopped it (Ctrl-C, SIGTERM). What was verified is kept: run again to resume. Not `retryable`: a loop
    that tries again whatever may succeed must not swallow Ctrl-C.
    """

    exit_code = 130


_OS_HINTS = {
    errno.ENOSPC: "free some space, then run again: what is verified is kept",
    errno.EDQUOT: "your disk quota is used up; free some space, then run again: what is verified is kept",
    errno.EROFS: "the file system is read-only; set DIACHUNK_HOME to a directory you can write",
    errno.EACCES: "check the permissions, or set DIACHUNK_HOME to a directory you can write",
    errno.EPERM: "check the permissions, or set DIACHUNK_HOME to a directory you can write",
    errno.EIO: "the disk reports an error; check it before you trust anything on it",
    errno.EMFILE: "too many open files; raise `ulimit -n`",
    errno.EFBIG: "the file system cannot hold a file of this size",
    errno.ENAMETOOLONG: "the file system does not take names of this length",
}


def from_os_error(error: OSError, doing: str, path: str | os.PathLike[str] | None = None) -> StoreError:
    """Maps an OSError met while `doing` something to `path`. Raise the result `from error`."""
    where = f" {Path(path)}" if path is not None else (f" {error.filename}" if error.filename else "")
    what = error.strerror or type(error).__name__
    return StoreError(
        f"cannot {doing}{where}: {what}", hint=_OS_HINTS.get(error.errno or 0, ""), errno=error.errno
    )


@contextlib.contextmanager
def os_errors(doing: str, path: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Maps an OSError of the block to StoreError, as `from_os_error` does; for use where the edge is."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing, path) from error
