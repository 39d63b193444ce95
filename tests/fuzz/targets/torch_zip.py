"""The reader of PyTorch zip files, on any bytes."""

from __future__ import annotations

import struct

from diachunk.formats.torch_zip import TorchZip
from format_files import Zip, ZipEntry
from fuzz.targets._formats import read_with

DICTIONARY = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"/data/", b"\xff" * 4,
    b"\xff" * 2, b"\1\0\x18\0", b"/constants/", b"\0" * 8)  # fmt: skip
_READER = TorchZip()


def fuzz_one(data: bytes) -> None:
    read_with(_READER, data)


def seeds() -> list[bytes]:
    padded = b"FB" + struct.pack("<H", 20) + bytes(20)
    plain = [
        ZipEntry(b"archive/data.pkl", b"\x80\x02}."),
        ZipEntry(b"archive/data/0", b"0123456789", local_extra=padded),
        ZipEntry(b"archive/constants/1", b"abc"),
        ZipEntry(b"archive/version", b"3\n", method=8, packed=2, size=9),
    ]
    wide = [ZipEntry(b"m/data/%d" % number, b"x" * number, sizes_in_zip64=True) for number in range(3)]
    return [
        b"\0" + Zip(plain).build(),
        b"\0" + Zip(plain, comment=b"PK\x05\x06" * 9).build(),
        b"\0" + Zip(wide, zip64=True, saturated=True).build(),
        b"\0" + Zip(wide, zip64=True).build(),
        b"\0" + b"PK\x05\x06" * 1500,
        b"\0" + Zip([ZipEntry(b"m/data/" + b"/" * 4000, b"")]).build(),
        b"\0" + Zip([ZipEntry(b"m/data/%d" % number, b"") for number in range(80)]).build(),
    ]
