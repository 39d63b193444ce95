"""The rule tensor-4m/1: where a file is cut into chunks. Pure: sizes in, sizes out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import pairwise

from diachunk.formats.base import TensorSpan
from diachunk.formats.registry import Layout
from diachunk.limits import CHUNK_BYTES, TENSOR_CUT_BYTES

RULE = "tensor-4m/1"


def rule_for(layout: Layout) -> str:
    """The name of the rule that cuts a file of this layout, as a manifest states it.

    A plug-in's name is part of it: where that plug-in is missing, the same bytes are cut elsewhere.
    """
    return RULE if layout.builtin else f"{RULE}+{layout.reader}"


def cut_sizes(size_bytes: int, spans: Iterable[TensorSpan]) -> array[int]:
    """The sizes of a file's chunks, in order.

    Cut points are 0, the file's end, and the start and end of every tensor of at least 256 KiB; what lies
    between two of them is cut every 4 MiB, with a shorter last piece. A tensor's chunks so depend on nothing
    around it.

    Args:
        size_bytes: the file's size. An empty file has no chunks.
        spans: its tensors, in any order.

    Raises:
        ValueError: a negative size, or a tensor outside the file.
    """
    if size_bytes < 0:
        raise ValueError(f"a file of {size_bytes} bytes")
    points = {0, size_bytes}
    for span in spans:
        if not 0 <= span.offset <= span.end <= size_bytes:
            raise ValueError(f"tensor {span.name!r:.80} lies outside its file of {size_bytes} bytes")
        if span.size >= TENSOR_CUT_BYTES:
            points.update((span.offset, span.end))
    sizes = array("I")
    for start, end in pairwise(sorted(points)):
        whole, rest = divmod(end - start, CHUNK_BYTES)
        sizes.extend([CHUNK_BYTES] * whole)
        if rest:
            sizes.append(rest)
    return sizes
