from __future__ import annotations

import io
import struct
import warnings
import zipfile
from typing import Any

import pytest
import torch

from diachunk.formats.base import FormatError
from diachunk.formats.torch_zip import TorchZip
from diachunk.testing.format_contract import SparseAccess
from format_files import Zip, ZipEntry, places, read


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_every_storage_that_torch_wrote_lies_at_its_span() -> None:
    shared = torch.arange(1000, dtype=torch.float32)
    half, big = torch.ones(77, dtype=torch.bfloat16), torch.randn(300, 301)
    nested = {"half": half, "list": [torch.arange(5)]}
    data = saved({"first": shared, "view": shared[10:20], "n": nested, "empty": torch.empty(0), "big": big})
    assert places(TorchZip(), data) == {
        "archive/data/0": raw(shared),
        "archive/data/1": raw(half),
        "archive/data/2": raw(torch.arange(5)),
        "archive/data/3": b"",
        "archive/data/4": raw(big),
    }
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert {"archive/data.pkl", "archive/version", "archive/.data/serialization_id"} <= set(names)


def test_torch_loads_the_same_values_that_the_spans_hold() -> None:
    data = saved({"w": torch.randn(64, 64)})
    loaded = torch.load(io.BytesIO(data), weights_only=True)
    assert places(TorchZip(), data)["archive/data/0"] == raw(loaded["w"])


def test_a_file_written_to_a_path_has_that_prefix(tmp_path: Any) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "model.pth")
    assert places(TorchZip(), (tmp_path / "model.pth").read_bytes()) == {"model/data/0": raw(torch.ones(3))}


def test_torchscript_parameters_and_frozen_constants_are_found() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.script(torch.nn.Linear(33, 7).eval())
        plain, frozen = io.BytesIO(), io.BytesIO()
        torch.jit.save(module, plain)
        torch.jit.save(torch.jit.freeze(module), frozen)
    weight = raw(module.weight.detach())
    assert places(TorchZip(), plain.getvalue())["archive/data/0"] == weight
    assert weight in places(TorchZip(), frozen.getvalue()).values()
    assert all("/constants/" in name for name in places(TorchZip(), frozen.getvalue()))


def test_the_old_format_that_is_no_zip_is_not_claimed() -> None:
    data = saved({"w": torch.ones(3)}, _use_new_zipfile_serialization=False)
    assert not TorchZip().claims("model.pth", data[:16])


def test_only_stored_storages_count() -> None:
    packed = ZipEntry(b"a/data/0", b"deflated", method=8)
    secret = ZipEntry(b"a/data/1", b"secret", flags=1)
    others = [
        ZipEntry(name, b"other") for name in (b"a/data.pkl", b"data/2", b"a/data/", b"a/.data/3", b"/data/4")
    ]
    plain = ZipEntry(b"x/y/data/5", b"plain")
    assert places(TorchZip(), Zip([packed, secret, *others, plain]).build()) == {"x/y/data/5": b"plain"}


def test_the_local_header_decides_where_the_data_starts() -> None:
    entry = ZipEntry(b"a/data/0", b"bytes", local_extra=b"FB\x14\x00" + bytes(20))
    assert places(TorchZip(), Zip([entry]).build()) == {"a/data/0": b"bytes"}


@pytest.mark.parametrize("comment", [b"", b"hello", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), b"x" * 65_535])
def test_a_comment_of_any_kind_does_not_hide_the_directory(comment: bytes) -> None:
    data = Zip([ZipEntry(b"a/data/0", b"bytes")], comment=comment).build()
    if comment == b"PK\x05\x06" + bytes(18):
        with pytest.raises(
            FormatError
        ):  # What ends the file is an empty zip's end record: nothing here to trust.
            read(TorchZip(), data)
    else:
        assert places(TorchZip(), data) == {"a/data/0": b"bytes"}


@pytest.mark.parametrize("saturated", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_zip64_records_are_read(saturated: bool, wide: bool) -> None:
    entries = [ZipEntry(b"a/data/%d" % index, b"%d" % index * 9, sizes_in_zip64=wide) for index in range(3)]
    data = Zip(entries, zip64=True, saturated=saturated).build()
    assert places(TorchZip(), data) == {f"a/data/{index}": b"%d" % index * 9 for index in range(3)}


def test_a_zip_of_the_standard_library_is_read() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data/0", b"stored")
        archive.writestr("m/data/1", b"deflated" * 99, compress_type=zipfile.ZIP_DEFLATED)
        with archive.open("m/data/2", "w", force_zip64=True) as file:
            file.write(b"zip64")
    assert places(TorchZip(), buffer.getvalue()) == {"m/data/0": b"stored", "m/data/2": b"zip64"}


def test_an_empty_zip_has_no_storages() -> None:
    assert read(TorchZip(), Zip([]).build()) == []


def one(**changes: Any) -> Zip:
    values: dict[str, Any] = {"name": b"a/data/0", "data": b"bytes"} | changes
    return Zip([ZipEntry(**values)])


def lying(zip64: bool = False, **changes: int) -> Zip:
    return Zip([ZipEntry(b"a/data/0", b"bytes")], zip64=zip64, changes=changes)


def reaching(name: bytes) -> Zip:
    """A storage whose size reaches into the entry after it."""
    return Zip([ZipEntry(b"a/data/0", b"bytes", size=30), ZipEntry(name, b"x")])


def two(**changes: Any) -> Zip:
    return Zip([ZipEntry(b"a/data/0", b"bytes"), ZipEntry(b"a/data/1", b"more!", **changes)])


MALFORMED = {
    "no end record": Zip([]).build()[:-22] + b"PK\x03\x04" + bytes(40),
    "bytes after the end": one().build() + b"x",
    "bytes before the start": b"x" + one().build(),
    "prefixed as a script": b"#!/bin/sh\n" + one().build(),
    "on another disk": one(disk=1).build(),
    "archive on disks": lying(disk=1).build(),
    "count too high": lying(count=2).build(),
    "count too low": lying(count=0).build(),
    "count enormous": lying(zip64=True, count=2**60).build(),
    "directory too long": lying(size=9999).build(),
    "directory elsewhere": lying(offset=3).build(),
    "directory at the end of the world": lying(zip64=True, offset=2**63).build(),
    "zip64 record elsewhere": lying(zip64=True, record=3).build(),
    "zip64 record outside": lying(zip64=True, record=2**64 - 1).build(),
    "end records disagree": lying(zip64=True, short_count=7).build(),
    "zip64 sizes missing": one(size=0xFFFFFFFF).build(),
    "other name inside": one(local_name=b"a/data/9").build(),
    "longer name inside": one(local_name=b"a/data/00").build(),
    "other method inside": one(local_method=8).build(),
    "stored in another size": one(packed=4).build(),
    "over the end": one(size=6).build(),
    "size of the world": one(size=2**63, sizes_in_zip64=True).build(),
    "offset of the world": one(offset=2**63, sizes_in_zip64=True).build(),
    "offset in the directory": one(offset=44).build(),
    "offset in the data": two(offset=3).build(),
    "two entries at one place": two(offset=0).build(),
    "others at one place": Zip([ZipEntry(b"a", b"x"), ZipEntry(b"b", b"x", offset=0)]).build(),
    "another outside": Zip([ZipEntry(b"a", b"x", offset=2**31)]).build(),
    "into the next entry": reaching(b"a/data/1").build(),
    "over an entry that is no storage": reaching(b"pkl").build(),
    "name not UTF-8": one(name=b"a/data/\xff").build(),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_zip_is_refused(what: str) -> None:
    with pytest.raises(FormatError):
        read(TorchZip(), MALFORMED[what])


def test_the_zips_that_malformed_ones_are_made_from_are_themselves_accepted() -> None:
    assert places(TorchZip(), one().build()) == {"a/data/0": b"bytes"}
    assert places(TorchZip(), two().build()) == {"a/data/0": b"bytes", "a/data/1": b"more!"}


def test_a_directory_that_ends_inside_an_entry_is_refused() -> None:
    data = bytearray(two().build())
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<H", data, second + 28, 4000)
    with pytest.raises(FormatError, match="central directory"):
        read(TorchZip(), bytes(data))


def test_a_gap_between_the_zip64_record_and_its_locator_is_refused() -> None:
    data = lying(zip64=True).build()
    locator = data.rindex(b"PK\x06\x07")
    with pytest.raises(FormatError, match="zip64"):
        read(TorchZip(), data[:locator] + bytes(8) + data[locator:])


@pytest.mark.parametrize(
    ("entries", "size", "why"),
    [(1_000_001, 90_000_000, "1000001 entries"), (1, 100_000_001, "over the limit"), (10, 459, "10 entries")],
)
def test_a_directory_over_the_limits_is_not_read(entries: int, size: int, why: str) -> None:
    end64 = 10**9 + size
    record = (b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, 10**9)
    tail = struct.pack("<4sQ2H2I4Q", *record) + struct.pack("<4sIQI", b"PK\x06\x07", 0, end64, 1)
    tail += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    file = SparseAccess(end64 + len(tail), b"PK\x03\x04", tail)
    with pytest.raises(FormatError, match=why):
        TorchZip().tensors(file)
    assert file.largest_read_bytes < 100_000
