"""What a zip file of PyTorch must be before torch reads it: nothing compressed, one pickle, and that of a bounded size.

A compressed member may stand for more memory than there is; a byte order makes torch swap the bytes of a storage that
has none, which ends the process.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, cast

from diachunk.formats.base import FormatError
from diachunk.limits import MiB
from diachunk.loader.gauge import TooLarge, measure

PICKLE_BYTES_MAX = 32 * MiB
_ORDER_BYTES_MAX = 16
_LOCAL = struct.Struct("<4s22x2H")  # APPNOTE.TXT 4.3.7: what of a local header says where the data starts


def check_zip(file: io.RawIOBase, *, trusted: bool = False) -> int:
    """Checks the members of a zip file of PyTorch, whose directory was read without complaint, and its pickle,
    unless whoever made it is trusted to run code.

    Returns:
        The size of its pickle in bytes.

    Raises:
        FormatError: it is not what torch.save writes, or its pickle is of unreasonable size.
        Unreadable: the pickle holds what `weights_only` does not read.
    """
    file.seek(-22, io.SEEK_END)
    end = file.read(22)
    # Readers differ in where they look for the directory if a comment follows it; torch.save writes none.
    if not end or not end.startswith(b"PK\x05\x06") or end[-2:] != b"\0\0":
        raise FormatError("a comment follows the zip file's directory")
    try:
        with zipfile.ZipFile(cast(IO[bytes], file)) as archive:
            members = archive.infolist()
            if any(each.compress_type != zipfile.ZIP_STORED for each in members):
                raise FormatError("a member of the zip file is compressed")
        pickled = _member(file, members, "data.pkl", PICKLE_BYTES_MAX)
        order = _member(file, members, "byteorder", _ORDER_BYTES_MAX)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise FormatError("the zip file is malformed") from error
    if order is not None and order.strip() == b"big":
        raise FormatError("its tensors are big-endian; torch.load and torch.save turn them")
    if pickled is not None and not trusted:
        measure(pickled)
    return 0 if pickled is None else len(pickled)


def _member(file: io.RawIOBase, members: list[zipfile.ZipInfo], name: str, bytes_max: int) -> bytes | None:
    """The bytes of the member "<any>/name"."""
    # torch finds it whatever its case, so there may be but one. A storage, one level down, may have any key.
    found = [each for each in members if each.filename.lower().rpartition("/")[2] == name]
    found = [each for each in found if each.filename.count("/") <= 1]
    if len(found) > 1:
        raise FormatError(f"the zip file has several members {name}")
    if not found:
        return None
    if found[0].file_size > bytes_max:
        raise TooLarge(f"{name} has {found[0].file_size:,} bytes")
    # Not by `zipfile`: torch.save may be told to write no checksums.
    file.seek(found[0].header_offset)
    header = file.read(_LOCAL.size) or b""
    signature, name_bytes, extra_bytes = _LOCAL.unpack(header)
    if signature != b"PK\x03\x04":
        raise FormatError(f"{name} is not where the zip file's directory has it")
    file.seek(name_bytes + extra_bytes, io.SEEK_CUR)
    data = file.read(found[0].file_size) or b""
    if len(data) != found[0].file_size:
        raise FormatError(f"{name} is cut short")
    return data
