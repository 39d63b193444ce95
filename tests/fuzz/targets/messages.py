"""Messages: no login, no query string, no control character, and no time to speak of."""

from __future__ import annotations

import re
from functools import partial

from diachunk.errors import ManifestError, UsageError, printable, redact
from fuzz.checks import bounded, text_of

DICTIONARY = (b"https://", b"://", b"?", b"@", b"#", b"\x1b[31m", b"\xe2\x80\xae", b"\n", b"'", b" ")
_SECRET = "s3cr3t-w0rd"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def fuzz_one(data: bytes) -> None:
    text = text_of(data)
    for make in (redact, printable):
        bounded(partial(make, text), len(data))
    for error in (UsageError(text, hint=text), ManifestError(text, rule="M1")):
        assert not _CONTROL.search(str(error))
    # Where a word ends anything may stand before an address, and after it.
    head, _, tail = text.partition("\0")
    name = re.sub(r"[/?#\s@]", "", head)[:40]
    for address in (
        f"https://{name}:{_SECRET}@host/p",
        f"https://host/p?{name}={_SECRET}",
        f"s3://{_SECRET}@b",
    ):
        told = redact(f"{head} {address} {tail}")
        assert _SECRET not in told, told


def seeds() -> list[bytes]:
    return [
        b"cannot get https://user:password@example.org/a?token=x#frag: timed out",
        b"two: http://a@b/?c and ftp://d:e@f/g?h",
        b"\x1b]0;title\x07 \xe2\x80\xaeabc",
        b"a" * 60_000 + b" x://y",
        *(piece * (9_000 // len(piece)) + b"?" for piece in (b"a://", b"://", b"a@", b"a:b@", b"x://y?")),
    ]
