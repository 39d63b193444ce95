"""What the three format targets share: one reader, every promise of formats/base.py."""

from __future__ import annotations

from diachunk.chunking.cuts import cut_sizes
from diachunk.formats.base import FormatError, FormatReader
from diachunk.formats.registry import HEAD_BYTES, find_tensors
from diachunk.formats.spans import check
from diachunk.limits import CHUNK_BYTES, KiB, MiB
from fuzz.checks import WatchedFile, bounded

HOLES = (0, 1, 64, 300 * KiB, 5 * MiB)
"""How many 0xff follow the bytes: tensors can be large without a large input."""
_READ_SLACK_BYTES = 256 * KiB


def read_with(reader: FormatReader, data: bytes) -> None:
    """The first byte chooses the hole, the others are the file."""
    hole_bytes = HOLES[data[0] % len(HOLES)] if data else 0
    body = data[1:]
    file = WatchedFile(body, hole_bytes)
    reader.claims("", body[:HEAD_BYTES])
    # "A small multiple of what was read": of the hole as well, where the file says that it is header.
    spans, _ = bounded(
        lambda: reader.tensors(file), lambda: file.read_bytes, errors=(FormatError,), bytes_per_byte=40
    )
    assert file.read_bytes <= 4 * file.size + _READ_SLACK_BYTES, f"{file.read_bytes:,} bytes read"
    if spans is not None:
        check(spans, file.size)
        assert spans == reader.tensors(WatchedFile(body, hole_bytes)), "a pure function of the bytes"
    layout, _ = bounded(lambda: find_tensors("x.bin", file), lambda: file.read_bytes, bytes_per_byte=40)
    assert layout is not None
    assert layout.builtin, "no plug-in is there"
    if spans is not None and reader.claims("", body[:HEAD_BYTES]):
        assert layout.reader
        assert layout.reader != reader.name or list(layout.spans) == spans
    assert layout == find_tensors("y.gguf", WatchedFile(body, hole_bytes)), "its name does not matter"
    sizes = cut_sizes(file.size, layout.spans)
    assert sum(sizes) == file.size
    assert all(1 <= size <= CHUNK_BYTES for size in sizes)
