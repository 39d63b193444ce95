"""What all readers need: bounded reads, and the one check that spans are sorted, inside and disjoint."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from diachunk.formats.base import FormatError, RandomAccess, TensorSpan
from diachunk.limits import DEFAULT

HEADER_BYTES_MAX = DEFAULT.tensor_header_bytes_max
"""The most a reader asks of a file at once. Never the configured limit: cuts must not follow a config."""
TENSORS_MAX = 1_000_000
"""A span costs some 300 bytes of memory, so a header may not hold as many as it has room for."""
_NAME_CHARS_MAX = 65_535


def read_exactly(file: RandomAccess, offset: int, size: int) -> bytes:
    """Reads `size` bytes at `offset`.

    Raises:
        FormatError: they do not all lie in the file, or are more than a header may have.
    """
    if size > HEADER_BYTES_MAX:
        raise FormatError(f"a header of {size} bytes is over the limit of {HEADER_BYTES_MAX}")
    if offset < 0 or size < 0 or offset + size > file.size:
        raise FormatError(f"bytes {offset} to {offset + size} are outside the file")
    data = file.read_at(offset, size)
    if len(data) != size:
        raise FormatError(f"the file ends {size - len(data)} bytes early")
    return data


def check_name(name: str) -> str:
    """Returns a tensor's name that any text file or terminal stream can encode.

    Raises:
        FormatError: it holds a lone surrogate, or is longer than 65,535 characters.
    """
    if len(name) > _NAME_CHARS_MAX:
        raise FormatError(f"a tensor's name has {len(name)} characters")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FormatError("a tensor's name holds a lone surrogate") from error
    return name


def in_order(spans: Iterable[TensorSpan], file_size: int) -> list[TensorSpan]:
    """Sorts spans by offset and checks them.

    Raises:
        FormatError: one lies outside the file, or two overlap.
    """
    ordered = sorted(spans, key=lambda span: (span.offset, span.size, span.name))
    check(ordered, file_size)
    return ordered


def check(spans: Iterable[TensorSpan], file_size: int) -> None:
    """Checks what `FormatReader` promises of the spans of one file.

    Raises:
        FormatError: a span lies outside the file, or they are out of order, or two overlap.
    """
    spans = list(spans)
    if len(spans) > TENSORS_MAX:
        raise FormatError(f"{len(spans)} tensors are over the limit of {TENSORS_MAX}")
    for span in spans:
        if not all(type(number) is int for number in (span.offset, span.size, *span.shape)):
            raise FormatError(f"tensor {span.name!r:.80}: its place and shape must be integers")
        if type(span.name) is not str or type(span.dtype) is not str:
            raise FormatError(f"tensor {span.name!r:.80}: its name and dtype must be text")
        if span.offset < 0 or span.size < 0 or span.end > file_size:
            raise FormatError(f"tensor {span.name!r:.80} lies outside the file, or ends before it begins")
    for one, other in pairwise(spans):
        if other.offset < one.end or other.offset < one.offset:
            raise FormatError(f"tensors {one.name!r:.80} and {other.name!r:.80} overlap or are out of order")
