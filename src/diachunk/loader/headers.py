"""Which tensors a file holds, from its header alone. The bytes of the header were verified by whoever reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from diachunk.errors import LoadError
from diachunk.formats.base import FormatError, RandomAccess
from diachunk.formats.gguf import Gguf
from diachunk.formats.registry import HEAD_BYTES
from diachunk.formats.safetensors import Safetensors
from diachunk.formats.torch_zip import TorchZip
from diachunk.loader.dtypes import of_format, shape_of
from diachunk.loader.layout import Layout, Storage, View, check_views, row_major
from diachunk.loader.pickles import read_legacy, read_zip, ready_layout

_LENGTH_BYTES = 8


def read_layout(file: RandomAccess, number: int, label: str, *, allow_code: bool = False) -> Layout:
    """Reads the header of file number `number`.

    Args:
        label: how people know it.
        allow_code: also read what runs code while it is read.

    Raises:
        LoadError: no format that loads, a malformed header, or one that needs code to be read.
    """
    head = file.read_at(0, HEAD_BYTES)
    try:
        if Safetensors().claims("", head):
            return _safetensors(file, number, label)
        if TorchZip().claims("", head):
            return read_zip(file, number, label, allow_code=allow_code)
    except FormatError as error:
        raise LoadError(f"{label} cannot be loaded: {error}") from error
    if Gguf().claims("", head):
        raise LoadError(
            f"{label} is GGUF, whose packed tensors torch has no dtypes for", hint="use llama.cpp"
        )
    return ready_layout(read_legacy(file, label, allow_code=allow_code), label)


def may_hold_pickle(file: RandomAccess) -> bool:
    """Whether `read_layout` would take it for a zip file of PyTorch: slow to read, beside a safetensors header."""
    return TorchZip().claims("", file.read_at(0, HEAD_BYTES))


def _safetensors(file: RandomAccess, number: int, label: str) -> Layout:
    """As the reader that cuts chunks sees it: its checks are the checks of loading, too."""
    storages: list[Storage] = []
    views: list[View] = []
    for span in Safetensors().tensors(file):
        dtype = of_format(span.dtype, span.name)
        shape = shape_of(dtype, span.shape)
        views.append(View(span.name, len(storages), dtype, shape, row_major(shape)))
        storages.append(Storage(number, span.offset, span.size, dtype))
    layout = Layout(tuple(storages), tuple(views), _metadata(file))
    check_views(layout, label)
    return layout


def _metadata(file: RandomAccess) -> Mapping[str, str]:
    """`__metadata__` of a header that was read without complaint: text to text."""
    length = int.from_bytes(file.read_at(0, _LENGTH_BYTES), "little")
    text = file.read_at(_LENGTH_BYTES, length)
    if b"__metadata__" not in text and b"\\u" not in text:
        return {}
    # Entry by entry: as a whole, a hostile header would become gigabytes of objects.
    decoder, header = json.JSONDecoder(), text.decode()
    at = header.index("{") + 1
    while (start := header.find('"', at)) >= 0:
        name, at = decoder.raw_decode(header, start)
        at = header.index("{", at)
        if name == "__metadata__":
            found: Mapping[str, str] = decoder.raw_decode(header, at)[0]
            return found
        at = header.index("}", at) + 1  # an entry is flat, and has no braces in its strings either
    return {}
