"""The tree that a PyTorch file holds, taken apart: its tensors by dotted names, and the rest as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch

from diachunk.errors import LoadError
from diachunk.formats.base import FormatError
from diachunk.formats.spans import check_name

_DEPTH_MAX = 64
_ENTRIES_MAX = 250_000
_ENTRIES_BASE = 20_000
_ENTRIES_PER_BYTE = 4
"""Of a pickle. An entry takes a byte or more; few bytes stand for many where a tree holds the same often."""
_KEY_ENTRIES_MAX = 1_000
_UNWRAPPED = "state_dict"


def unwrapped(
    tree: object, label: str, pickle_bytes: int | None = None
) -> tuple[list[tuple[str, torch.Tensor]], Mapping[str, Any]]:
    """Tensors by dotted names, and everything else. A lone "state_dict" among what holds tensors is left out of
    the names.

    Args:
        pickle_bytes: how large the pickle was that the tree came from, if it was not trusted.

    Raises:
        LoadError: nested too deep, or too many entries: a small pickle can stand for a huge tree.
    """
    entries_max = _ENTRIES_MAX
    if pickle_bytes is not None:
        entries_max = min(entries_max, _ENTRIES_BASE + _ENTRIES_PER_BYTE * pickle_bytes)
    walk = _Walk(label, entries_max)
    if isinstance(tree, Mapping) and isinstance(inner := tree.get(_UNWRAPPED), Mapping):
        others = {key: value for key, value in tree.items() if key != _UNWRAPPED}
        outer, rest = walk.split(others, "", 0)
        if not outer:
            tensors, more = walk.split(inner, "", 0)
            return tensors, {**(rest or {}), **({_UNWRAPPED: more} if more else {})}
        walk = _Walk(label, entries_max)
    if isinstance(tree, torch.Tensor):
        tree = {"tensor": tree}
    tensors, rest = walk.split(tree, "", 0)
    return tensors, rest or {}


class _Walk:
    """Takes a tree of dicts and lists apart, within bounds."""

    def __init__(self, label: str, entries_max: int) -> None:
        self._label = label
        self._max = self._left = entries_max

    def split(self, node: Any, prefix: str, depth: int) -> tuple[list[tuple[str, torch.Tensor]], Any]:
        """(tensors by name, the same tree without them; None where nothing else was)."""
        if depth > _DEPTH_MAX:
            raise LoadError(f"{self._label}: nested deeper than {_DEPTH_MAX}")
        tensors: list[tuple[str, torch.Tensor]] = []
        rest: dict[Any, Any] = {}
        for key, value in _children(node):
            self._left -= 1
            if self._left < 0:
                raise LoadError(f"{self._label}: more than {self._max:,} entries")
            name = self._name(prefix, key)
            if isinstance(value, torch.Tensor):
                tensors.append((name, value))
            elif isinstance(value, Mapping | list | tuple):
                inner, left = self.split(value, name, depth + 1)
                tensors += inner
                if left is not None or not inner:
                    rest[key] = value if not inner else left
            else:
                rest[key] = value
        return tensors, rest or None

    def _name(self, prefix: str, key: object) -> str:
        # Few bytes can stand for a tuple of millions: seconds as text, in which no Ctrl-C is heard.
        if isinstance(key, tuple) and len(list(islice(_flat(key), _KEY_ENTRIES_MAX + 1))) > _KEY_ENTRIES_MAX:
            raise LoadError(f"{self._label}: a key of more than {_KEY_ENTRIES_MAX:,} entries")
        name = f"{prefix}.{key}" if prefix else str(key)
        try:
            return check_name(name)
        except FormatError as error:
            raise LoadError(f"{self._label}: {error}") from error


def _flat(key: tuple[object, ...]) -> Iterator[object]:
    """What stands in a key, and the tuples around it."""
    for each in key:
        yield each
        if isinstance(each, tuple):
            yield from _flat(each)


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    return iter(node.items()) if isinstance(node, Mapping) else iter(enumerate(node))
