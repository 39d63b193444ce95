"""What a component holds: storages, which are byte ranges of files, and tensors, which are views of storages.

A safetensors file has a storage for each tensor. In a PyTorch file several tensors may share one; that they do, and
with which strides, is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from diachunk.errors import LoadError

_INT_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Storage:
    """Bytes [offset, offset + size) of file `file`, as elements of one dtype."""

    file: int
    offset: int
    size: int
    dtype: torch.dtype

    @property
    def end(self) -> int:
        return self.offset + self.size

    @property
    def elements(self) -> int:
        return self.size // self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class View:
    """One tensor: `shape` and `stride` in elements over storage number `storage`, from element `start`."""

    name: str
    storage: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int = 0
    conjugated: bool = False
    negated: bool = False

    @property
    def reaches(self) -> int:
        """The element behind the last one that the view touches; 0 for a view without elements."""
        if 0 in self.shape:
            return 0
        steps = ((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return self.start + sum(steps) + 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of one or more files, and what else their headers say.

    Attributes:
        views: in the order in which the files list them.
        metadata: of safetensors files, their `__metadata__`; of PyTorch files, all that is no tensor.
        ready: tensors that came whole with the header (old pickles): on the host, in their own dtypes.
    """

    storages: tuple[Storage, ...]
    views: tuple[View, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    ready: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors, in order."""
        return (*self.ready, *(view.name for view in self.views))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous tensor, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(1, shape[axis + 1])
    return tuple(strides)


def check_views(layout: Layout, label: str) -> None:
    """Whether every view lies inside its storage. A hostile file may say anything.

    Raises:
        LoadError: one does not.
    """
    for view in layout.views:
        storage = layout.storages[view.storage]
        inside = storage.size // view.dtype.itemsize
        # Of a tensor without elements the other sizes may be anything: torch counts in 64 bits.
        if max(math.prod(max(1, size) for size in view.shape), *view.stride, 0) > _INT_MAX:
            raise LoadError(f"{label}: tensor {view.name!r:.80} is of a shape that no tensor has")
        if view.start < 0 or min((*view.shape, *view.stride), default=0) < 0 or view.reaches > inside:
            raise LoadError(
                f"{label}: tensor {view.name!r:.80} reaches outside its storage of {inside} elements"
            )


def merged(layouts: Sequence[Layout], labels: Sequence[str]) -> Layout:
    """Several files as one; file n's storages must already carry the number n.

    Raises:
        LoadError: two files hold a tensor of one name.
    """
    storages: list[Storage] = []
    views: list[View] = []
    metadata: dict[str, Any] = {}
    ready: dict[str, torch.Tensor] = {}
    home: dict[str, str] = {}
    for layout, label in zip(layouts, labels, strict=True):
        for name in layout.names:
            if name in home:
                raise LoadError(f"both {home[name]} and {label} hold a tensor {name!r:.80}")
            home[name] = label
        views += [_moved(view, len(storages)) for view in layout.views] if storages else layout.views
        storages += layout.storages
        ready.update(layout.ready)
        for key, value in layout.metadata.items():
            metadata.setdefault(key, value)
    return Layout(tuple(storages), tuple(views), metadata, ready)


def _moved(view: View, by: int) -> View:
    return replace(view, storage=view.storage + by)


def chosen(layout: Layout, names: Sequence[str]) -> Layout:
    """Only these tensors, in this order, and the storages that they need."""
    by_name = {view.name: view for view in layout.views}
    numbers: dict[int, int] = {}
    views = []
    for name in names:
        view = by_name.get(name)
        if view is not None:
            number = numbers.setdefault(view.storage, len(numbers))
            views.append(_moved(view, number - view.storage))
    ready = {name: layout.ready[name] for name in names if name in layout.ready}
    return Layout(tuple(layout.storages[old] for old in numbers), tuple(views), layout.metadata, ready)
