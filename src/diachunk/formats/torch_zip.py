"""Reads where the storages lie in a zip file that `torch.save` or TorchScript wrote.

Source: PKWARE APPNOTE.TXT 6.3.10 (section numbers below); PyTorch writes each storage uncompressed as
`<any>/data/<key>` (TorchScript's constants as `<any>/constants/<key>`), aligned to 64 bytes by padding the
*local* extra field. Not `zipfile`: how strict that is changes between Python versions, and with it would
change the cuts, and the manifest's id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from diachunk.formats.base import FormatError, RandomAccess, TensorSpan
from diachunk.formats.spans import TENSORS_MAX, check_name, in_order, read_exactly

_LOCAL = struct.Struct("<4s5H3I2H")  # 4.3.7
_CENTRAL = struct.Struct("<4s6H3I5H2I")  # 4.3.12
_END64 = struct.Struct("<4sQ2H2I4Q")  # 4.3.14
_LOCATOR64 = struct.Struct("<4sIQI")  # 4.3.15
_END = struct.Struct("<4s4H2IH")  # 4.3.16
_COMMENT_BYTES_MAX = 0xFFFF
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED = 1 | 1 << 6 | 1 << 13  # 4.4.4
_STORED = 0
_ZIP64_EXTRA = 1
_STORAGE_DIRECTORIES = (b"data", b"constants")


@dataclass(frozen=True, slots=True)
class _Directory:
    offset: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: bytes
    stored: bool
    size: int
    header_offset: int

    @property
    def is_storage(self) -> bool:
        *prefix, directory, key = (b"", b"", *self.name.split(b"/"))
        return self.stored and directory in _STORAGE_DIRECTORIES and key != b"" and any(prefix)


class TorchZip:
    """The reader of `.pth`, `.pt`, `.bin` and `.ckpt` in PyTorch's zip format (PyTorch 1.6 and later)."""

    name = "torch-zip"

    def claims(self, path: str, head: bytes) -> bool:
        return head.startswith(b"PK\x03\x04")

    def tensors(self, file: RandomAccess) -> list[TensorSpan]:
        directory = _find_directory(file)
        entries = sorted(_read_directory(file, directory), key=lambda entry: entry.header_offset)
        ends = [entry.header_offset for entry in entries[1:]] + [directory.offset]
        for one, other in pairwise([entry.header_offset for entry in entries] + [directory.offset]):
            if other - one < _LOCAL.size:
                raise FormatError("two entries of the zip file overlap")
        spans = [
            _storage(file, entry, end) for entry, end in zip(entries, ends, strict=False) if entry.is_storage
        ]
        return in_order(spans, file.size)


def _find_directory(file: RandomAccess) -> _Directory:
    tail_size = min(file.size, _END.size + _COMMENT_BYTES_MAX)
    tail_start = file.size - tail_size
    tail = read_exactly(file, tail_start, tail_size)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + _END.size <= tail_size:
            _, disk, first_disk, here, entries, size, offset, comment = _END.unpack_from(tail, at)
            if at + _END.size + comment == tail_size:
                break
        at = tail.rfind(b"PK\x05\x06", 0, at + 3)
    else:
        raise FormatError("no end of central directory: not a zip file, or a truncated one")
    if disk not in (0, _FULL16) or first_disk not in (0, _FULL16):
        raise FormatError("the zip file spans several disks")
    end = tail_start + at
    short = _Directory(offset, size, entries)
    if here != entries:
        raise FormatError("the zip file spans several disks")
    directory, directory_end = _find_directory64(file, end, short) or (short, end)
    if directory.entries > TENSORS_MAX or directory.entries * _CENTRAL.size > directory.size:
        raise FormatError(f"{directory.entries} entries in a central directory of {directory.size} bytes")
    if directory.offset + directory.size != directory_end:
        raise FormatError("the central directory does not end where the records after it start")
    return directory


def _find_directory64(file: RandomAccess, end: int, short: _Directory) -> tuple[_Directory, int] | None:
    """The zip64 directory and where its own end record starts, or None if the file has none."""
    if end < _LOCATOR64.size:
        return None
    locator_start = end - _LOCATOR64.size
    signature, disk, start, disks = _LOCATOR64.unpack(read_exactly(file, locator_start, _LOCATOR64.size))
    if signature != b"PK\x06\x07":
        return None
    record = _END64.unpack(read_exactly(file, start, _END64.size))
    signature, size, _, _, own_disk, first_disk, here, entries, directory_size, offset = record
    if signature != b"PK\x06\x06" or start + 12 + size != locator_start or size + 12 < _END64.size:
        raise FormatError("the zip64 end record is malformed")
    if disk or own_disk or first_disk or disks > 1 or here != entries:
        raise FormatError("the zip file spans several disks")
    long = _Directory(offset, directory_size, entries)
    for brief, full, saturated in (
        (short.entries, entries, _FULL16),
        (short.size, directory_size, _FULL32),
        (short.offset, offset, _FULL32),
    ):
        if brief not in (full, saturated):
            raise FormatError("the two end records of the zip file disagree")
    return long, start


def _read_directory(file: RandomAccess, directory: _Directory) -> Iterator[_Entry]:
    data = read_exactly(file, directory.offset, directory.size)
    at = 0
    for _ in range(directory.entries):
        if at + _CENTRAL.size > len(data):
            raise FormatError("the central directory is cut short")
        fields = _CENTRAL.unpack_from(data, at)
        signature, flags, method, packed, size = fields[0], fields[3], fields[4], fields[8], fields[9]
        name_size, extra_size, comment_size, disk, offset = *fields[10:14], fields[16]
        name_start = at + _CENTRAL.size
        extra_start = name_start + name_size
        at = extra_start + extra_size + comment_size
        if signature != b"PK\x01\x02" or at > len(data):
            raise FormatError("the central directory is malformed")
        extra = data[extra_start : extra_start + extra_size]
        size, packed, offset, disk = _widen(extra, size, packed, offset, disk)
        stored = method == _STORED and not flags & _ENCRYPTED
        if disk or (stored and packed != size):
            raise FormatError("an entry lies on another disk, or is stored in a size that is not its own")
        yield _Entry(data[name_start:extra_start], stored, size, offset)
    if at != len(data):
        raise FormatError("something follows the last entry of the central directory")


def _widen(extra: bytes, size: int, packed: int, offset: int, disk: int) -> tuple[int, int, int, int]:
    """Replaces saturated fields by the ones of the zip64 extra field (4.5.3), in its order."""
    if _FULL32 not in (size, packed, offset) and disk != _FULL16:
        return size, packed, offset, disk
    wide = _zip64_extra(extra)
    values = []
    for value, saturated, width in (
        (size, _FULL32, 8),
        (packed, _FULL32, 8),
        (offset, _FULL32, 8),
        (disk, _FULL16, 4),
    ):
        if value == saturated:
            if len(wide) < width:
                raise FormatError("a zip64 extra field is missing or too short")
            value, wide = int.from_bytes(wide[:width], "little"), wide[width:]
        values.append(value)
    return values[0], values[1], values[2], values[3]


def _zip64_extra(extra: bytes) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if at + 4 + size > len(extra):
            raise FormatError("an extra field of the zip file is malformed")
        if kind == _ZIP64_EXTRA:
            return extra[at + 4 : at + 4 + size]
        at += 4 + size
    return b""


def _storage(file: RandomAccess, entry: _Entry, end: int) -> TensorSpan:
    """The span of a storage: only its local header knows how long that header is."""
    header = read_exactly(file, entry.header_offset, _LOCAL.size + len(entry.name))
    fields = _LOCAL.unpack_from(header)
    signature, flags, method, name_size, extra_size = fields[0], fields[2], fields[3], fields[9], fields[10]
    if signature != b"PK\x03\x04" or header[_LOCAL.size :] != entry.name or name_size != len(entry.name):
        raise FormatError(f"the local header of {entry.name!r:.80} is not its own")
    if flags & _ENCRYPTED or method != _STORED:
        raise FormatError(f"the two headers of {entry.name!r:.80} disagree")
    start = entry.header_offset + len(header) + extra_size
    if start + entry.size > end:
        raise FormatError(f"{entry.name!r:.80} reaches into what follows it")
    try:
        name = check_name(entry.name.decode())
    except UnicodeDecodeError as error:
        raise FormatError(f"{entry.name!r:.80} is not UTF-8") from error
    return TensorSpan(name, "", (), start, entry.size)
