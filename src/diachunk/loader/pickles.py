"""Which tensors a PyTorch file holds. torch itself reads the pickle, under `weights_only`, into tensors without data.

Onto the meta device torch.load builds every tensor but reads no storage, and notes where in the file each one lies;
FakeTensorMode does the same, also in versions where the meta device does not, but takes seconds to start. No unpickler
here; what torch says of places is compared with the zip directory that our own reader checked.
"""

from __future__ import annotations

import io
import pickle
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

import torch

from diachunk.errors import DiachunkError, LoadError
from diachunk.formats.base import FormatError, RandomAccess, TensorSpan
from diachunk.formats.spans import HEADER_BYTES_MAX
from diachunk.formats.torch_zip import TorchZip
from diachunk.loader.blob import Damaged
from diachunk.loader.gauge import Unreadable
from diachunk.loader.layout import Layout, Storage, View, check_views
from diachunk.loader.members import check_zip
from diachunk.loader.trees import unwrapped

_quietly = threading.RLock()
"""What to warn of is the process's: of two threads that change it, the later one would put back what the other had set,
and nobody would be warned of anything any more."""


class FileView(io.RawIOBase):
    """A RandomAccess as a Python file, for torch."""

    def __init__(self, file: RandomAccess) -> None:
        super().__init__()
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._file.size - self._at)
        data = self._file.read_at(self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def read_zip(file: RandomAccess, number: int, label: str, *, allow_code: bool) -> Layout:
    """The layout of a zip file of PyTorch.

    Raises:
        FormatError: the zip file is malformed.
        LoadError: it holds what is no plain tensor, or what needs code to be built.
    """
    spans = {span.offset: span for span in TorchZip().tensors(file)}
    if file.size - sum(span.size for span in spans.values()) > HEADER_BYTES_MAX:
        raise FormatError(f"over {HEADER_BYTES_MAX:,} bytes that are no tensors")
    try:
        pickle_bytes = check_zip(FileView(file), trusted=allow_code)
    except Unreadable as error:
        raise _needs_code(label) from error
    known = _Known(number, label, spans, pickle_bytes)
    try:
        return _laid_out(_load(file, label, "meta", allow_code=allow_code), known)
    except _Unplaced:
        from torch._subclasses.fake_tensor import FakeTensorMode

        try:
            with FakeTensorMode():
                return _laid_out(_load(file, label, None, allow_code=allow_code), known)
        except _Unplaced as error:
            raise LoadError(
                f"{label}: tensor {error} has no bytes of its own in the file", hint="use a newer torch"
            ) from error


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a file before its pickle is read. `spans`: its storages by where they start."""

    number: int
    label: str
    spans: Mapping[int, TensorSpan]
    pickle_bytes: int


def _laid_out(tree: object, known: _Known) -> Layout:
    """`_layout`, of tensors that may say anything of themselves: a pickle gives them what attributes it likes."""
    try:
        return _layout(tree, known)
    except (DiachunkError, _Unplaced, MemoryError):
        raise
    except Exception as error:
        raise LoadError(f"{known.label} cannot be loaded: its tensors are not what they seem") from error


class _Unplaced(Exception):
    """torch did not note where a storage lies."""


def _load(file: RandomAccess, label: str, device: str | None, *, allow_code: bool) -> object:
    try:
        with _quietly, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = cast(IO[bytes], FileView(file))
            return torch.load(opened, map_location=device, weights_only=not allow_code)
    except (Damaged, DiachunkError):
        raise
    except MemoryError as error:
        raise LoadError(f"{label} cannot be loaded: out of memory") from error
    except pickle.UnpicklingError as error:
        if allow_code:
            raise LoadError(f"{label} cannot be loaded: its pickle is malformed") from error
        raise _needs_code(label) from error
    except Exception as error:  # torch raises anything for a malformed file
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, Damaged | DiachunkError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        if not allow_code and "weights_only" in str(error):
            raise _needs_code(label) from error
        what = str(error).strip().splitlines() or [type(error).__name__]
        raise LoadError(f"{label} cannot be loaded: {what[0]:.200}") from error


def _needs_code(label: str) -> LoadError:
    return LoadError(
        f"{label} is more than tensors: to load it would run code that it names; nothing was run",
        hint="allow_code=True (load --allow-code) loads it, if you trust whoever made it",
    )


def read_legacy(file: RandomAccess, label: str, *, allow_code: bool) -> object:
    """Reads a pickle of before PyTorch 1.6, whole and into host memory: it has no directory to plan by.

    Raises:
        LoadError: it is none, or `allow_code` is off: nothing is then run.
    """
    if file.read_at(0, 1) != b"\x80":
        raise LoadError(
            f"{label} is neither safetensors nor a PyTorch checkpoint", hint="choose another --component"
        )
    if not allow_code:
        raise _needs_code(label)
    return _load(file, label, "cpu", allow_code=True)


def ready_layout(tree: object, label: str) -> Layout:
    """A tree that holds its tensors already."""
    tensors, metadata = unwrapped(tree, label)
    ready: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        if name in ready:
            raise _collision(label, name)
        ready[name] = tensor.detach()
    return Layout((), (), metadata, ready)


def _collision(label: str, name: str) -> LoadError:
    return LoadError(f"{label}: two tensors come out as {name!r:.80}")


# --- from what torch built to views ----------------------------------------------------------------------------


def _layout(tree: object, known: _Known) -> Layout:
    label = known.label
    if isinstance(tree, torch.nn.Module):
        raise LoadError(f"{label} is a TorchScript program", hint="torch.jit.load reads it, if you trust it")
    storages: dict[int, int] = {}
    found: list[Storage] = []
    views: list[View] = []
    seen: set[str] = set()
    tensors, metadata = unwrapped(tree, label, known.pickle_bytes)
    for name, tensor in tensors:
        if name in seen:
            raise _collision(label, name)
        seen.add(name)
        offset, size = _place(tensor, name, known)
        if offset not in storages:
            storages[offset] = len(found)
            found.append(Storage(known.number, offset, size, tensor.dtype))
        elif found[storages[offset]].size != size:
            raise LoadError(f"{label}: the storage of {name!r:.80} has two sizes")
        views.append(_view(name, storages[offset], tensor))
    layout = Layout(tuple(found), tuple(views), metadata)
    check_views(layout, label)
    return layout


def _place(tensor: torch.Tensor, name: str, known: _Known) -> tuple[int, int]:
    """Where the tensor's storage lies, if the zip directory agrees."""
    label = known.label
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise LoadError(f"{label}: tensor {name!r:.80} is sparse or quantized; only dense ones are loaded")
    storage = tensor.untyped_storage()
    offset, size = getattr(storage, "_checkpoint_offset", None), storage.nbytes()
    if offset is None:
        raise _Unplaced(name)
    span = known.spans.get(offset)
    if span is None or span.size < size:
        raise LoadError(f"{label}: the storage of {name!r:.80} is not where the file's directory has one")
    return offset, size


def _view(name: str, storage: int, tensor: torch.Tensor) -> View:
    return View(
        name,
        storage,
        tensor.dtype,
        tuple(tensor.shape),
        tuple(tensor.stride()),
        int(tensor.storage_offset()),
        tensor.is_conj(),
        tensor.is_neg(),
    )
