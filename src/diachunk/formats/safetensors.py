"""Reads safetensors headers.

Source: https://github.com/huggingface/safetensors, "Format": 8 bytes of little-endian header length, a JSON
object of at most 100 MB, then the data. The object is walked entry by entry instead of being parsed whole:
a hostile 100 MB of `[[],[],...` would become gigabytes of lists, and how deep Python's json recurses differs
between versions, which must not decide where a file is cut.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeGuard

from diachunk.formats.base import FormatError, RandomAccess, TensorSpan
from diachunk.formats.spans import HEADER_BYTES_MAX, TENSORS_MAX, check_name, in_order, read_exactly

_LENGTH_BYTES = 8
_ENTRY = re.compile(r"\{[^{}]{0,8192}\}")
_BRACKETS_MAX = 8
_DIGITS_MAX = 20
_SPACE = re.compile(r"[ \t\n\r]*")

_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class Safetensors:
    """The reader of `.safetensors`. It goes by content, since a blob in a store has no suffix."""

    name = "safetensors"

    def claims(self, path: str, head: bytes) -> bool:
        length = int.from_bytes(head[:_LENGTH_BYTES], "little")
        return head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and 2 <= length <= HEADER_BYTES_MAX

    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        head = read_exactly(file, 0, _LENGTH_BYTES + 1)
        if not self.claims("", head):
            raise FormatError("no safetensors header")
        length = int.from_bytes(head[:_LENGTH_BYTES], "little")
        try:
            text = read_exactly(file, _LENGTH_BYTES, length).decode()
        except UnicodeDecodeError as error:
            raise FormatError("the header is not UTF-8") from error
        data_start = _LENGTH_BYTES + length
        spans: dict[str, TensorSpan] = {}
        for name, entry in _Header(text).entries():
            if name in spans:
                raise FormatError(f"tensor {name!r:.80} stands twice in the header")
            if len(spans) == TENSORS_MAX:
                raise FormatError(f"more than {TENSORS_MAX} tensors")
            spans[name] = _span(name, entry, data_start)
        return in_order(spans.values(), file.size)


class _Header:
    """Walks `{"name": {flat object}, ..., "__metadata__": {"key": "value"}}`, holding one entry at a time."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def entries(self) -> Iterator[tuple[str, dict[str, Any]]]:
        metadata_seen = False
        for name in self._keys():
            if name != "__metadata__":
                yield check_name(name), self._entry()
            elif metadata_seen:
                raise FormatError("__metadata__ stands twice in the header")
            else:
                metadata_seen = True
                self._metadata()
        if self._at != len(self._text):
            raise FormatError("something follows the header's object")

    def _keys(self) -> Iterator[str]:
        """The keys of the object that starts here; whoever iterates reads each value before the next key."""
        self._expect("{")
        if self._took("}"):
            return
        while True:
            key = self._string()
            self._expect(":")
            yield key
            if self._took("}"):
                return
            self._expect(",")

    def _metadata(self) -> None:
        seen = set()
        for key in self._keys():
            if key in seen:
                raise FormatError("a key stands twice in __metadata__")
            seen.add(key)
            self._string()

    def _entry(self) -> dict[str, Any]:
        self._skip_space()
        match = _ENTRY.match(self._text, self._at)
        if match is None or match[0].count("[") > _BRACKETS_MAX:
            raise FormatError("a tensor's entry is not a short, flat object")
        self._at = match.end()
        try:
            entry: dict[str, Any] = _ENTRIES.decode(match[0])
        except ValueError as error:
            raise FormatError("a tensor's entry is not JSON") from error
        return entry

    def _string(self) -> str:
        self._skip_space()
        if self._text[self._at : self._at + 1] != '"':
            raise FormatError(f"a string was expected at character {self._at} of the header")
        try:
            value, self._at = _STRINGS.raw_decode(self._text, self._at)
        except ValueError as error:
            raise FormatError("a string of the header is not JSON") from error
        return str(value)

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _took(self, character: str) -> bool:
        self._skip_space()
        if self._text[self._at : self._at + 1] != character:
            return False
        self._at += 1
        self._skip_space()
        return True

    def _expect(self, character: str) -> None:
        if not self._took(character):
            raise FormatError(f"{character!r} was expected at character {self._at} of the header")


def _span(name: str, entry: dict[str, Any], data_start: int) -> TensorSpan:
    dtype, shape, place = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or not _is_naturals(shape) or not _is_naturals(place) or len(place) != 2:
        raise FormatError(f"tensor {name!r:.80}: dtype, shape or data_offsets is missing or of a wrong type")
    check_name(dtype)
    begin, end = place
    bits = _BITS.get(dtype)
    if bits is not None and math.prod(shape) * bits != (end - begin) * 8:
        raise FormatError(f"tensor {name!r:.80}: {dtype} of shape {shape!r:.80} is not {end - begin} bytes")
    return TensorSpan(name, dtype, tuple(shape), data_start + begin, end - begin)


def _is_naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(number) is int and number >= 0 for number in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) != len(pairs):
        raise FormatError("a key stands twice in a tensor's entry")
    return entry


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise FormatError("a number of the header has too many digits")
    return int(digits)


def _refuse(text: str) -> NoReturn:
    raise FormatError(f"{text:.20} is not a natural number")


_STRINGS = json.JSONDecoder()
_ENTRIES = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
)
