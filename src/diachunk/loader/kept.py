"""What a PyTorch file holds, as it is kept beside its stamp: proven, it then opens without its pickle.

A layout follows from the bytes of the file alone, and those that it was read from were compared with a chunk list: it
is right for every file that this list was verified on. Not for every file of that digest: a manifest may claim the
blob of another over chunks of its own. What is read here may be anything all the same, and is as if it were not there
where it is not what was written.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import torch

from diachunk.digest import Digest, digest_of
from diachunk.errors import LoadError
from diachunk.formats.base import FormatError
from diachunk.formats.spans import check_name
from diachunk.limits import MiB
from diachunk.loader.dtypes import short
from diachunk.loader.layout import Layout, Storage, View, check_views
from diachunk.loader.plain import NotPlain, from_json, to_json

KEPT_BYTES_MAX = 32 * MiB
_VERSION = 2
"""Goes up with every change of what `loader/pickles.py` makes of a file."""
_VIEWS_MAX = 250_000
_HEX = 64


def encode(layout: Layout, chunk_list: Digest) -> bytes | None:
    """The layout of a file of these chunks; None where it cannot be kept: what is no tensor has to come back as what
    it was.

    Args:
        chunk_list: `ChunkList.id` of what its bytes were compared with.
    """
    if layout.ready:
        return None
    try:
        metadata = to_json(dict(layout.metadata))
    except NotPlain:
        return None
    content = {
        "diachunk_tensors": _VERSION,
        "chunk_list": chunk_list.hex(),
        "storages": [[each.offset, each.size, short(each.dtype)] for each in layout.storages],
        "views": [
            [
                each.name,
                each.storage,
                short(each.dtype),
                each.shape,
                each.stride,
                each.start,
                each.conjugated,
                each.negated,
            ]
            for each in layout.views
        ],
        "metadata": metadata,
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    data = digest_of(text).hex().encode() + b"\n" + text
    return data if len(data) <= KEPT_BYTES_MAX else None


def decode(data: bytes | None, chunk_list: Digest, size: int, number: int) -> Layout | None:
    """The layout that was kept of a file of these chunks, of `size` bytes, as file number `number`; None if this is
    none.
    """
    if data is None or data[:_HEX] != digest_of(data[_HEX + 1 :]).hex().encode():
        return None
    try:
        content = json.loads(data[_HEX + 1 :])
        if content["diachunk_tensors"] != _VERSION or content["chunk_list"] != chunk_list.hex():
            return None
        if len(content["views"]) > _VIEWS_MAX:
            return None
        layout = Layout(
            tuple(_storage(each, number, size) for each in content["storages"]),
            tuple(_view(each) for each in content["views"]),
            _metadata(content["metadata"]),
        )
        if {each.storage for each in layout.views} != set(range(len(layout.storages))):
            return None
        if len(set(layout.names)) != len(layout.names):
            return None
        check_views(layout, "")
    except (LookupError, TypeError, ValueError, RecursionError, FormatError, LoadError):
        return None
    return layout


def _metadata(found: Any) -> dict[Any, Any]:
    value = from_json(found)
    if type(value) is not dict:
        raise ValueError("no dict")
    return value


def _storage(fields: list[Any], number: int, size: int) -> Storage:
    offset, bytes_, word = fields
    if not 0 <= _whole(offset) <= size - _whole(bytes_) <= size:
        raise ValueError("a storage outside the file")
    return Storage(number, offset, bytes_, _dtypes()[word])


def _view(fields: list[Any]) -> View:
    name, storage, word, shape, stride, start, conjugated, negated = fields
    if type(name) is not str or len(shape) != len(stride):
        raise ValueError("a name that is none, or a shape without its strides")
    return View(
        check_name(name),
        _whole(storage),
        _dtypes()[word],
        tuple(map(_whole, shape)),
        tuple(map(_whole, stride)),
        _whole(start),
        conjugated is True,
        negated is True,
    )


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("no whole number")
    return value


@cache
def _dtypes() -> dict[str, torch.dtype]:
    """By name. Not asked of torch one by one: some of what it is asked for it imports first."""
    return {short(each): each for each in vars(torch).values() if isinstance(each, torch.dtype)}
