"""Which readers there are, and which of them reads a file.

The three built-in readers are imported here, so nothing has to be looked up for them. Others come from the
entry point group `diachunk.formats`; docs/formats.md shows how to add one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from diachunk.formats.base import FormatError, FormatReader, RandomAccess, TensorSpan
from diachunk.formats.gguf import Gguf
from diachunk.formats.safetensors import Safetensors
from diachunk.formats.spans import check
from diachunk.formats.torch_zip import TorchZip

GROUP = "diachunk.formats"
HEAD_BYTES = 16
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
"""Of a reader: it is part of the rule by which a file was cut, in its manifest."""
_BUILTIN: tuple[FormatReader, ...] = (Safetensors(), TorchZip(), Gguf())
_BUILTIN_NAMES = frozenset(reader.name for reader in _BUILTIN)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tensors of one file lie.

    Attributes:
        reader: the name of the reader that told, or "" if none could: the file is then cut plainly.
        spans: sorted by offset, inside the file, disjoint.
        builtin: whether every diachunk finds the same, or only one that has this plug-in.
    """

    reader: str = ""
    spans: tuple[TensorSpan, ...] = ()
    builtin: bool = True


def readers() -> tuple[FormatReader, ...]:
    """The built-in readers in fixed order, then the plug-ins by name, looked up once a process."""
    return tuple(_in_order())


def _in_order() -> Iterator[FormatReader]:
    """As `readers`, but looks for plug-ins only if no built-in reader was the answer: that takes time."""
    yield from _BUILTIN
    yield from _plugins()


def find_tensors(path: str, file: RandomAccess) -> Layout:
    """Finds the tensors of a file by the first reader that claims and understands it, and finds any: many formats
    are zip files, and to the reader of PyTorch's they are some without tensors.

    Never fails for what the bytes say: a malformed file has a plain layout.

    Args:
        path: the file's name, for readers that go by suffix; the built-in ones go by content alone.
        file: its bytes.

    Raises:
        OSError: the file cannot be read. A disk error must not turn into other cuts.
    """
    watched = _Watched(file)
    head = watched.read_at(0, HEAD_BYTES)
    without_tensors: Layout | None = None
    for reader in _in_order():
        spans = _ask(reader, path, head, watched)
        if watched.error is not None:
            raise watched.error
        if spans is None:
            continue
        layout = Layout(reader.name, spans, reader in _BUILTIN)
        if spans:
            return layout
        without_tensors = without_tensors or layout
    return without_tensors or Layout()


class _Watched:
    """Remembers an error of the file, in case the reader that met it swallows it."""

    def __init__(self, file: RandomAccess) -> None:
        self._file = file
        self.size = file.size
        self.error: OSError | None = None

    def read_at(self, offset: int, size: int) -> bytes:
        try:
            return self._file.read_at(offset, size)
        except OSError as error:
            self.error = error
            raise


def _ask(reader: FormatReader, path: str, head: bytes, file: _Watched) -> tuple[TensorSpan, ...] | None:
    """The reader's spans, checked, or None if it does not read this file."""
    try:
        if not reader.claims(path, head):
            return None
        spans = tuple(reader.tensors(file))
        check(spans, file.size)
    except FormatError as error:
        _log.debug("%r: not read as %s: %s", path, reader.name, error)
        return None
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a plug-in may raise anything, and must not end a publish
        if file.error is None:
            _log.warning("%r: the reader %s failed; please report it", path, reader.name, exc_info=True)
        return None
    return spans


@cache
def _plugins() -> tuple[FormatReader, ...]:
    found: dict[str, FormatReader] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        reader = _load(entry)
        if reader is None:
            continue
        if entry.name in found:
            _log.warning("two plug-ins read %r; %s is ignored", entry.name, entry.value)
            continue
        found[entry.name] = reader
    return tuple(found.values())


def _load(entry: EntryPoint) -> FormatReader | None:
    """The plug-in's reader; None, with a warning, for one that cannot be used."""
    if entry.name in _BUILTIN_NAMES:
        if entry.value.partition(":")[0].rpartition(".")[0] != __package__:
            _log.warning("the reader %r is built in; %s is ignored", entry.name, entry.value)
        return None
    try:
        reader: FormatReader = entry.load()()
        if not NAME.fullmatch(entry.name) or reader.name != entry.name:
            _log.warning("%s calls itself %r, registered as %r", entry.value, reader.name, entry.name)
            return None
    except Exception:  # noqa: BLE001 - importing a plug-in runs its code, which may raise anything
        _log.warning("the format plug-in %s cannot be loaded", entry.value, exc_info=True)
        return None
    return reader
