"""What a format reader is: it says where tensors lie in a file, from untrusted bytes, and reads no tensor."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self


class FormatError(Exception):
    """The file is not what this reader reads, or is malformed. Never leaves `formats`: cuts become plain."""


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """Where one tensor's bytes lie. Half-open: [offset, offset + size), in bytes from the file's start.

    `name` is the tensor's name where the header tells it, else the name of what holds it (in PyTorch zip
    files a storage, such as "archive/data/17"). `dtype` is the format's own word, `shape` is () if unknown.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


class RandomAccess(Protocol):
    """A file of known size that can be read anywhere."""

    @property
    def size(self) -> int: ...

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns at most `size` bytes from `offset`, fewer only at the end of the file."""
        ...


class FormatReader(Protocol):
    """One file format. Readers are plug-ins (entry point group `diachunk.formats`); the suite that each must
    pass is `diachunk.testing.format_contract`.

    Contract:
        * `tensors` is a pure function of the file's bytes, on every machine and Python version: the cut
          points, and so the manifest's id, follow from it.
        * No read asks for more than `spans.HEADER_BYTES_MAX`, and memory is a small multiple of what was
          read, whatever the file claims. There are at most `spans.TENSORS_MAX` spans.
        * Spans lie inside the file and do not overlap; they are sorted by offset. An empty one is allowed.
        * A reader keeps nothing from one file for the next, and lets an OSError of `read_at` pass.
    """

    name: str

    def claims(self, path: str, head: bytes) -> bool:
        """Whether to try this reader on a file of this path (suffix) and first 16 bytes, or fewer.

        Go by the bytes where the format allows: the same file under another name then gets the same cuts.
        """
        ...

    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        """Where the tensors lie.

        Raises:
            FormatError: malformed or not this format; nothing else, whatever the bytes.
        """
        ...


@dataclass(frozen=True, slots=True)
class BytesAccess:
    """RandomAccess over bytes in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]


class FileAccess:
    """RandomAccess over an open file descriptor that the caller owns, or over a path (a context manager).

    Args:
        size_bytes: what the file should have, for reading the header of one that was cut off; its own by default.
    """

    def __init__(self, file: int | Path, size_bytes: int | None = None) -> None:
        self._size_bytes = size_bytes
        self._owned = isinstance(file, Path)
        self._fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC) if isinstance(file, Path) else file

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size if self._size_bytes is None else self._size_bytes

    def read_at(self, offset: int, size: int) -> bytes:
        pieces = []
        while size > 0 and (piece := os.pread(self._fd, size, offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return b"".join(pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._owned:
            os.close(self._fd)
