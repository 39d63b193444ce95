"""Values of a checkpoint that are no tensors, as JSON that gives back just them.

Scalars stand for themselves. JSON's arrays and objects do not: it knows no tuple and only text for keys, and a training
checkpoint is full of both (betas of an optimizer, its state by number). Every container is an array that begins with
what it is: ["tuple", 0.9, 0.999], ["dict", [0, ["list"]]].
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from typing import Any

DEPTH_MAX = 16
_INT_MAX = 2**63 - 1
_INFINITE = {math.inf: "inf", -math.inf: "-inf"}
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")
"""Two surrogates side by side, escaped, come back from JSON as the one character that they are halves of."""
_SEQUENCES: dict[str, type[list[Any]] | type[tuple[Any, ...]]] = {"list": list, "tuple": tuple}
_MAPPINGS: dict[str, type[dict[Any, Any]]] = {"dict": dict, "OrderedDict": OrderedDict}


class NotPlain(ValueError):
    """JSON cannot give back just this, or it was not written by `to_json`."""


def to_json(value: Any, depth: int = 0) -> Any:
    """What `from_json` makes the same value of, types included.

    Raises:
        NotPlain: it holds another type than None, bool, int of 64 bits, float but NaN, str but of surrogate pairs,
            list, tuple, dict and OrderedDict; or it is nested deeper than `DEPTH_MAX`.
    """
    kind = type(value)
    if value is None or kind is bool or (kind is str and not _HALVES.search(value)):
        return value
    if kind is int and -_INT_MAX <= value <= _INT_MAX:
        return value
    if kind is float and not math.isnan(value):
        return ["float", _INFINITE[value]] if math.isinf(value) else value
    if depth <= DEPTH_MAX:
        if kind in _SEQUENCES.values():
            return [kind.__name__, *(to_json(each, depth + 1) for each in value)]
        # An OrderedDict that torch saved may have attributes besides.
        if kind in _MAPPINGS.values() and not getattr(value, "__dict__", None):
            items = ([to_json(key, depth + 1), to_json(each, depth + 1)] for key, each in value.items())
            return [kind.__name__, *items]
    raise NotPlain(f"a {kind.__name__}")


def from_json(found: Any, depth: int = 0) -> Any:
    """The value that `to_json` was given. `found` may be anything that JSON can hold.

    Raises:
        NotPlain: it is nothing that `to_json` returns.
        TypeError: a key that cannot be one.
    """
    if not isinstance(found, list):
        if isinstance(found, dict):
            raise NotPlain("an object")
        return found
    if depth > DEPTH_MAX or not found:
        raise NotPlain("nested too deep, or of no kind")
    word, *items = found
    if not isinstance(word, str):
        raise NotPlain("of no kind")
    if word in _SEQUENCES:
        return _SEQUENCES[word](from_json(each, depth + 1) for each in items)
    if word in _MAPPINGS:
        return _MAPPINGS[word]((from_json(key, depth + 1), from_json(each, depth + 1)) for key, each in items)
    if word == "float" and items in (["inf"], ["-inf"]):
        return float(items[0])
    raise NotPlain("of no known kind")
