"""What is kept of a PyTorch file's layout: what was written, or as if there were none."""

from __future__ import annotations

import io
import json
from functools import partial

import torch

from diachunk.digest import digest_of
from diachunk.formats.base import BytesAccess
from diachunk.loader.headers import read_layout
from diachunk.loader.kept import decode, encode
from fuzz.checks import bounded

DICTIONARY = (
    b'"diachunk_tensors":2,"chunk_list":"',
    b'"storages":[[',
    b'"views":[["',
    b'"metadata":["dict",["a",',
    b'["tuple",',
    b'["OrderedDict",[0,',
    b'["float","-inf"]',
    b'"float32"',
    b'"bfloat16"',
    b",[-1],[1],",
    b"9223372036854775807",
    b"\\ud800",
    b"true",
    b"null",
    b"1e400",
)
_FILE_BYTES = 4096
_CHUNKS = digest_of(b"fuzz")


def fuzz_one(data: bytes) -> None:
    """As it is, and with the checksum that belongs to it: who can write one knows how to make that, too."""
    for kept in (data, digest_of(data).hex().encode() + b"\n" + data):
        layout, _ = bounded(partial(decode, kept, _CHUNKS, _FILE_BYTES, 7), len(kept), bytes_per_byte=256)
        if layout is None:
            continue
        assert not layout.ready
        assert all(0 <= each.offset <= each.end <= _FILE_BYTES for each in layout.storages)
        assert all(each.file == 7 for each in layout.storages)
        assert len(set(layout.names)) == len(layout.views)
        for view in layout.views:
            storage = layout.storages[view.storage]
            assert view.reaches * view.dtype.itemsize <= storage.size
            assert min((*view.shape, *view.stride, view.start), default=0) >= 0
        again = encode(layout, _CHUNKS)
        if again is not None:
            assert decode(again, _CHUNKS, _FILE_BYTES, 7) == layout


def seeds() -> list[bytes]:
    base = torch.arange(64, dtype=torch.float32).reshape(8, 8)
    trees = (
        {"a": base},
        {"a": base, "t": base.t(), "part": base[1:5:2, 3:]},
        {"state_dict": {"w": base.to(torch.bfloat16)}, "epoch": 3, "note": ["x", {1: (None, -1e999)}]},
        {"c": torch.zeros(3, dtype=torch.complex64).conj(), "empty": torch.empty(0, 5)},
    )
    return [_text(tree) for tree in trees]


def _text(tree: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    kept = encode(read_layout(BytesAccess(buffer.getvalue()), 7, "seed"), _CHUNKS)
    assert kept is not None
    text = kept.partition(b"\n")[2]
    json.loads(text)
    return text
