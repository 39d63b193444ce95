"""JSON as manifests use it: a strict subset, so that every reader sees the same values in the same bytes.

Python's json module takes duplicate keys, floats, NaN, lone surrogates and integers of any length. Here all
of them are errors, in the whole manifest: hints and signatures included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from diachunk.errors import ManifestError
from diachunk.limits import Limits, MiB

INT_MAX = 2**53 - 1
"""The largest integer that every JSON implementation reads exactly (RFC 7493, section 2.2)."""

_KINDS = frozenset({str, int, dict, list})
"""Exact types: a bool is an int to isinstance, and a tuple would not come back as it went."""
_INT_DIGITS_MAX = 17
_VALUES_SLACK = 1_000_000
_BYTES_A_VALUE = 8


def parse(data: bytes, limits: Limits) -> dict[str, Any]:
    """Reads one JSON object. What `check` refuses is left to it: known fields are typed elsewhere, faster.

    Raises:
        ManifestError: M1, M2, M3 or M12.
        RecursionError: nested more deeply than the parser can follow.
    """
    if len(data) > limits.manifest_bytes_max:
        raise ManifestError(
            f"the manifest has {len(data)} bytes, more than {limits.manifest_bytes_max / MiB:g} MiB",
            rule="M1",
        )
    # Two bytes of "[]" cost 64 bytes of memory. No real manifest is anywhere near this dense.
    values = data.count(b"[") + data.count(b"{") + data.count(b'"') // 2
    if values > _VALUES_SLACK + len(data) // _BYTES_A_VALUE:
        raise ManifestError(f"the manifest packs {values} values into {len(data)} bytes", rule="M12")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise ManifestError(f"the manifest is not UTF-8: byte {error.start}", rule="M1") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ManifestError(f"the manifest is not JSON: {error.msg} ({where})", rule="M1") from error
    if type(document) is not dict:
        raise ManifestError(f"a manifest is a JSON object, not {describe(document)}", rule="M1")
    return document


def check(value: object, where: str, depth: int, limits: Limits) -> None:
    """Walks what this version does not know: strings, integers, lists and objects only.

    Args:
        value: a plain JSON value.
        where: its place in the manifest, for the error.
        depth: how many lists and objects lie around it.

    Raises:
        ManifestError: M3, M4 or M5.
    """
    if type(value) not in _KINDS:
        raise ManifestError(
            f"{where} holds {describe(value)}: only strings, integers, lists and objects are allowed",
            rule="M3",
        )
    if isinstance(value, str):
        _check_text(value, where)
    elif isinstance(value, int):
        _check_integer(value, where)
    elif depth >= limits.nesting_max:
        raise ManifestError(f"{where} is nested more than {limits.nesting_max} deep", rule="M5")
    elif isinstance(value, dict):
        check_keys(value, where)
        for each in value.values():
            check(each, where, depth + 1, limits)
    elif isinstance(value, list):
        for each in value:
            check(each, where, depth + 1, limits)


def check_keys(mapping: Mapping[str, object], where: str) -> None:
    """Raises ManifestError (M4) unless every key is printable ASCII: there all sort orders agree."""
    for key in mapping:
        if type(key) is not str or not (key.isascii() and key.isprintable()):
            raise ManifestError(f"{where}: the key {describe(key)} is not printable ASCII", rule="M4")


def canonical(value: object) -> str:
    """RFC 8785 (JCS) text of a value that `check` accepts: there Python's own writer agrees with the RFC."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def describe(value: object) -> str:
    """A few words for an error message, whatever the size or depth of `value`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int):
        return str(value) if abs(value) <= INT_MAX else "an integer out of range"
    if isinstance(value, dict):
        return "an object"
    return "a number that is no integer" if isinstance(value, float) else f"a {type(value).__name__}"


def quote(text: str, chars_max: int = 80) -> str:
    """Untrusted text for an error message: in quotes, escaped, and short even if all of it is escapes."""
    return repr(text[:chars_max])[: chars_max + 2]


def _check_text(text: str, where: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ManifestError(f"{where} holds half a surrogate pair", rule="M4") from error


def _check_integer(value: int, where: str) -> None:
    if not 0 <= value <= INT_MAX:
        raise ManifestError(f"{where} holds an integer outside 0 .. 2^53-1", rule="M3")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        keys = iter(mapping)
        twice = next(key for key, _ in pairs if key != next(keys, None))
        raise ManifestError(f"the key {quote(twice)} stands twice in one object", rule="M2")
    return mapping


def _integer(text: str) -> int:
    # The length first: reading a long number takes time that grows with its square.
    value = int(text) if len(text) <= _INT_DIGITS_MAX else -1
    _check_integer(value, "the manifest")
    return value
