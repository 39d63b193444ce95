"""Values of settings, read and checked: each says in one line what is wanted where something else stands.

A settings file may be a stranger's (project.py). All raise UsageError, with the setting's name.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Any

from diachunk.errors import UsageError

_FILE_BYTES_MAX = 1024 * 1024
_PEER = re.compile(
    r"(?:dns:)?(\[[0-9A-Fa-f:.%]{2,64}\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?)(?::(\d{1,5}))?"
)
_DEEP_KEY = re.compile(
    r"""(?:^|[\[{,])[ \t]*(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){8}""", re.MULTILINE
)
"""Nothing here nests so deep, and tomllib takes memory by the square of it: a gigabyte for 32 KB."""


def read_text(path: Path) -> str | None:
    """The text of a settings file; None if it is not there. Never waits for the writer of a pipe.

    Raises:
        UsageError: it cannot be read, is not UTF-8, or is too large.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            data = file.read(_FILE_BYTES_MAX + 1) or b""
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _FILE_BYTES_MAX:
        raise UsageError(f"{path}: over {_FILE_BYTES_MAX:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8") from error


def parse_toml(text: str, label: str) -> dict[str, Any]:
    """Reads TOML of strangers.

    Raises:
        UsageError: it is none, or made to exhaust the reader.
    """
    if _DEEP_KEY.search(text):
        raise UsageError(f"{label}: a key of more than 8 parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of int(), for a number of 5,000 digits
        raise UsageError(f"{label}: not TOML: {error}") from error


def strings(key: str, value: Any) -> tuple[str, ...]:
    """A list of strings."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{key}: a list of strings is wanted")
    return tuple(value)


def string(key: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise UsageError(f"{key}: a string is wanted")
    return value


def path_of(key: str, text: str) -> Path:
    """A path as a user writes it, with `~`."""
    if "\0" in text:
        raise UsageError(f"{key}: not a path: {text!r:.60}")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{key}: no home directory for {text!r:.60}") from error


def peers(key: str, value: Any) -> tuple[str, ...]:
    """Reads HOST[:PORT], or dns:NAME[:PORT] for every address of a name; an IPv6 address stands in brackets."""
    found = strings(key, value)
    for text in found:
        match = _PEER.fullmatch(text)
        if match is None or not 0 < int(match[2] or 1) < 65536:
            raise UsageError(
                f"{key}: {text!r:.60} is not HOST[:PORT]", hint="such as lab-7, lab-7:8420 or [fd00::7]"
            )
    return found


def networks(key: str, value: Any) -> tuple[str, ...]:
    """Reads CIDR blocks: "10.0.0.0/8", "fd00::/8", a single address."""
    found = strings(key, value)
    for text in found:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise UsageError(
                f"{key}: {text!r:.60} is no network ({error})", hint="such as 10.0.0.0/8"
            ) from error
    return found


def flag(key: str, value: Any) -> bool:
    """true or false; of a variable, also 1, 0, yes and no."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if not isinstance(value, bool):
        raise UsageError(f"{key}: true or false is wanted")
    return value


def port(key: str, value: Any) -> int:
    """A TCP port."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
        raise UsageError(f"{key}: a port is wanted, 1 to 65535")
    return value
