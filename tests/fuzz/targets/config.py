"""Text of a config file, and the sizes, rates and durations in it and on the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

from diachunk.config import Config, parse_config, parse_duration, parse_rate, parse_size
from diachunk.errors import DiachunkError, UsageError
from diachunk.limits import Limits
from fuzz.checks import bounded, text_of

DICTIONARY = (
    b"home = ", b"stores = [", b"origins = [", b"[pins]\n", b"max_down = ", b"max_up = ", b"[limits]\n",
    *(field.name.encode() + b" = " for field in fields(Limits)),
    b'"""', b"'''", b"\\u0000", b'"~', b"0x", b"1e400", b"inf", b"nan", b"1979-05-27T07:32:00Z", b"[[a]]", b"a.b",
    b"MiB", b"Gbit", b"/s", b"ps", b"{}", b"true",
)  # fmt: skip
_PARSERS: tuple[Callable[[str], float], ...] = (parse_size, parse_rate, parse_duration)
_KEYS = {each.name for each in fields(Config)} - {"came_from"}


def fuzz_one(data: bytes) -> None:
    text = text_of(data)
    # tomllib keeps a dictionary of flags for each part of each key.
    values, error = bounded(
        lambda: parse_config(text, "x"), len(data), errors=(UsageError,), bytes_per_byte=1024
    )
    _check_message(error)
    if values is not None:
        assert set(values) <= _KEYS
        for path in (values.get("home"), *values.get("stores", ())):
            assert path is None or (isinstance(path, Path) and "\0" not in str(path)), (
                "a path that can be opened"
            )
        assert isinstance(values.get("limits", Limits()), Limits)
    for line in text.split("\n")[:4]:
        for parse in _PARSERS:
            number, error = bounded(partial(parse, line), len(line), errors=(UsageError,))
            _check_message(error)
            assert number is None or (number >= 0 and math.isfinite(number))


def _check_message(error: Exception | None) -> None:
    if error is not None:
        assert isinstance(error, DiachunkError)
        assert "\n" not in str(error)


def seeds() -> list[bytes]:
    full = b"""home = "/tmp/x"
stores = ["/a", "~/b"]
origins = ["https://example.org/x", "/mnt"]
max_down = "1.5MiB/s"
max_up = "10Mbps"
[pins]
"org/name@main" = "%s"
name = "%s"
[limits]
lanes = 4
stall_s = 0.5
""" % (b"0" * 64, b"a" * 64)
    return [
        full,
        b"10M\n1.5GiB\n100Mbit\n30d",
        b"[limits]\nlanes = " + b"9" * 4000,
        b"[limits]\nlanes = 0x" + b"f" * 4000,
        b'home = "~nobody-of-this-name/x"',
        b"home = " + b"[" * 3000,
        b"a" + b".a" * 500 + b" = 1",
    ]
