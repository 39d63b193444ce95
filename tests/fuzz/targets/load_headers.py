"""What the loader reads of a file before any tensor: headers, pickles, indexes. The first byte chooses which."""

from __future__ import annotations

from array import array
from functools import cache

import torch

from diachunk.digest import digest_of
from diachunk.errors import LoadError
from diachunk.loader.contents import shards_of
from diachunk.loader.dtypes import matches
from diachunk.loader.headers import read_layout
from diachunk.loader.layout import Layout
from diachunk.manifest import ChunkList, Component, FileEntry
from fixtures.load_attack import dict_of, pickled, safetensors_of, storage, tensor, text, zipped
from fuzz.checks import WatchedFile, bounded

DICTIONARY = (b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cbuiltins\nset\n", b"\x85R", b"\x81", b"tQ", b"q\0",
    b"h\0", b"\x86", b'"weight_map"', b"../", b"*", b"[!")  # fmt: skip
_STORAGE = bytes(64)
_TREE_S = 6.0
"""Any pickle may stand for 20,000 entries: 0.03 s, but a second where each line is watched and the machine is busy."""


def fuzz_one(data: bytes) -> None:
    if data:
        (_safetensors, _pickle, _any, _index, _globs)[data[0] % 5](data[1:])


def _safetensors(data: bytes) -> None:
    _read(safetensors_of(data, _STORAGE))


def _pickle(data: bytes) -> None:
    _read(zipped(data, {"0": _STORAGE, "1": _STORAGE[:7]}), _TREE_S)


def _any(data: bytes) -> None:
    _read(data, _TREE_S)


def _read(file: bytes, base_s: float | None = None) -> None:
    warm()
    layout, error = bounded(
        lambda: read_layout(WatchedFile(file), 0, "m/file"),
        len(file),
        errors=(LoadError,),
        base_bytes=8 << 20,
        bytes_per_byte=200,
        base_s=base_s,
    )
    if layout is None:
        assert error is not None
        assert str(error).isprintable()
        return
    check(layout, file)


def check(layout: Layout, file: bytes) -> None:
    """Every tensor can be made, and lies inside what the file has."""
    assert len(set(layout.names)) == len(layout.names)
    for each in layout.storages:
        assert 0 <= each.offset <= each.end <= len(file)
    for view in layout.views:
        place = layout.storages[view.storage]
        assert view.start >= 0
        assert view.reaches * view.dtype.itemsize <= place.size
        memory = torch.empty(place.size, dtype=torch.uint8, device="meta").untyped_storage()
        made = torch.empty(0, dtype=view.dtype, device="meta").set_(
            memory, view.start, view.shape, view.stride
        )
        assert tuple(made.shape) == view.shape
        assert memory.nbytes() == place.size, "nothing grew"


def _index(data: bytes) -> None:
    entries = tuple(
        FileEntry(path, 0, digest_of(b""), ChunkList(b"", array("I")))
        for path in ("a.safetensors", "b/c.safetensors", "i")
    )
    component = Component("m", entries)
    found, _ = bounded(
        lambda: shards_of(component, entries[2], data, "m"),
        len(data),
        errors=(LoadError,),
        bytes_per_byte=200,
    )
    if found is not None:
        assert all(each in entries for each in found[0])


def _globs(data: bytes) -> None:
    """Globs, one a line; the first line is the name."""
    name, *globs = data.decode("utf-8", "surrogateescape").split("\n")
    found, _ = bounded(lambda: matches(name, globs), len(data), bytes_per_byte=1000)
    assert found or name not in globs


@cache
def warm() -> None:
    """What torch imports and sets up at its first file is no file's doing."""
    read_layout(WatchedFile(zipped(pickled(dict_of(a=tensor())))), 0, "m/file")


def seeds() -> list[bytes]:
    header = b'{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"__metadata__":{"k":"v"}}'
    whole = zipped(pickled(dict_of(a=tensor(), b=dict_of(c=tensor(start=1, shape=(1,), stride=(3,))))))
    return [
        b"\0" + header,
        b"\0"
        + header.replace(b"[2,2]", b"[4611686018427387904,4611686018427387904,0]").replace(b"16]", b"0]"),
        b"\0" + header.replace(b"F32", b"F4").replace(b"[2,2]", b"[32]"),
        b"\1" + pickled(dict_of(a=tensor())),
        b"\1" + pickled(dict_of(a=tensor("1", elements=1), s=storage())),
        b"\1" + pickled(b"}(" + b")" + b"q\0h\0\x86" * 60 + tensor() + b"u"),
        b"\1" + pickled(dict_of(a=b"cbuiltins\nset\n]\x85R", t=text("x"))),
        b"\1" + pickled(b"]" * 2000 + b"a" * 1999),
        b"\2" + whole,
        b"\2" + whole[: len(whole) // 2],
        b"\2" + zipped(pickled(dict_of(a=tensor())), more={"byteorder": b"big"}),
        b"\2" + safetensors_of(header, bytes(16)),
        b"\3" + b'{"weight_map": {"x": "a.safetensors", "y": "b/c.safetensors"}}',
        b"\3" + b'{"weight_map": {"x": "../a.safetensors"}}',
        b"\3" + b"[" * 3000,
        b"\4" + b"model.layers.0\nmodel.*\n*[0-9]\n[",
        b"\4" + b"a" * 40 + b"\n" + b"*a" * 30 + b"b",
    ]
