"""Trees of PyTorch files by chance: what is kept of one stands for what its pickle gives, types and order included."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diachunk.digest import digest_of
from diachunk.errors import LoadError
from diachunk.formats.base import BytesAccess
from diachunk.loader.headers import read_layout
from diachunk.loader.kept import decode, encode
from diachunk.loader.layout import Layout

CHUNKS = digest_of(b"any")
DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
    torch.uint8,
)

_whole = st.integers(-(2**63) + 1, 2**63 - 1)
_scalars = st.one_of(st.none(), st.booleans(), _whole, st.floats(allow_nan=False), st.text(max_size=4))
_words = st.text("ab.", min_size=1, max_size=3)
_keys = st.one_of(_words, st.integers(-3, 3), st.booleans(), st.tuples(_words, st.integers(0, 2)))


@st.composite
def _tensors(draw: st.DrawFn, shared: list[torch.Tensor]) -> torch.Tensor:
    """New ones, and views of those that were made before."""
    again: bool = draw(st.booleans())
    if shared and again:
        base = draw(st.sampled_from(shared))
        return draw(st.sampled_from([base, base.t() if base.dim() == 2 else base, base[1:], base.detach()]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    tensor = torch.zeros(shape, dtype=draw(st.sampled_from(DTYPES)))
    if tensor.dim():
        shared.append(tensor)
    return tensor


@st.composite
def _trees(draw: st.DrawFn) -> dict[Any, Any]:
    shared: list[torch.Tensor] = []
    leaves = st.one_of(_scalars, _scalars, _tensors(shared))
    inner = st.recursive(
        leaves,
        lambda each: st.one_of(
            st.lists(each, max_size=3),
            st.lists(each, max_size=3).map(tuple),
            st.dictionaries(_keys, each, max_size=3),
            st.dictionaries(_keys, each, max_size=3).map(OrderedDict),
        ),
        max_leaves=12,
    )
    return draw(st.dictionaries(_keys, inner, max_size=4))


def _named(tree: Any, prefix: str = "") -> list[tuple[str, torch.Tensor]]:
    """The tensors of a tree by dotted names: written down again here, by the rule of docs/loading.md."""
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    found = []
    for key, value in items:
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, torch.Tensor):
            found.append((name, value))
        elif isinstance(value, Mapping | list | tuple):
            found += _named(value, name)
    return found


def _read(data: bytes) -> Layout | str:
    try:
        return read_layout(BytesAccess(data), 3, "file")
    except LoadError as error:
        return str(error)


@settings(max_examples=300, deadline=None)
@given(_trees())
def test_what_is_kept_is_what_the_pickle_gives(tree: dict[Any, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    data = buffer.getvalue()
    layout = _read(data)
    names = [name for name, _ in _named(torch.load(io.BytesIO(data), weights_only=True))]
    if isinstance(layout, str):
        assert len(set(names)) < len(names), layout
        return
    assert [view.name for view in layout.views] == names
    kept = encode(layout, CHUNKS)
    assert kept is not None, "nothing here is beyond JSON"
    again = decode(kept, CHUNKS, len(data), 3)
    assert again is not None
    assert again == layout
    assert repr(again.metadata) == repr(layout.metadata), "1 is not True, and a tuple no list"
