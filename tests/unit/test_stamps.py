"""A stamp proves only what was verified on this very file since it was last touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from diachunk.store.files import Files
from diachunk.store.stamps import Stamp, read_stamp, write_stamp

ONE, TWO = b"\x01" * 32, b"\x02" * 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    return path


def test_it_proves_the_lists_that_were_verified_and_no_other(file: Path) -> None:
    stamp = Stamp.of(file.stat()).adding(chunk_list=ONE)
    assert stamp.proves(file.stat(), ONE)
    assert not stamp.proves(file.stat(), TWO)
    assert stamp.adding(chunk_list=TWO).proves(file.stat(), ONE)


@pytest.mark.parametrize("change", ["touch", "grow", "replace"])
def test_a_file_that_was_touched_is_proven_no_more(file: Path, change: str) -> None:
    stamp = Stamp.of(file.stat()).adding(chunk_list=ONE)
    match change:
        case "touch":
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
        case "grow":
            before = file.stat()
            file.write_bytes(b"data and more")
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        case "replace":
            before = file.stat()
            other = file.with_name("other")
            other.write_bytes(b"dat4")
            os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
            other.rename(file)
    assert not stamp.proves(file.stat(), ONE)


def test_what_was_computed_is_kept_when_more_is_added(file: Path) -> None:
    stamp = Stamp.of(file.stat()).adding(blake3="b").adding(sha256="s", chunk_list=ONE).adding(chunk_list=ONE)
    assert (stamp.blake3, stamp.sha256, stamp.lists) == ("b", "s", (ONE.hex(),))
    assert stamp.verified_at > 0


def test_the_latest_lists_are_kept_and_their_number_is_bounded(file: Path) -> None:
    stamp = Stamp.of(file.stat())
    for number in range(200):
        stamp = stamp.adding(chunk_list=number.to_bytes(32, "big"))
    assert len(stamp.lists) == 64
    assert stamp.proves(file.stat(), (199).to_bytes(32, "big"))


def test_it_goes_to_disk_and_back(file: Path) -> None:
    stamp = Stamp.of(file.stat()).adding(chunk_list=ONE, blake3="b", sha256="s")
    write_stamp(Files(0o755), file.with_name("stamp"), stamp)
    assert read_stamp(file.with_name("stamp")) == stamp


GOOD = Stamp(1, 2, 3, 4, ("a",)).to_object()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        '"x"',
        "[" * 60_000,
        json.dumps({**GOOD, "device": "x"}),
        json.dumps({**GOOD, "device": None}),
        json.dumps({**GOOD, "lists": 5}),
        json.dumps({key: value for key, value in GOOD.items() if key != "inode"}),
        json.dumps({**GOOD, "size": float("inf")}),
        json.dumps({**GOOD, "size": float("nan")}),
        json.dumps({**GOOD, "verified_at": 10**400}),
        "\udcff",
        json.dumps(GOOD) + " " * 70_000,
    ],
)
def test_anything_else_on_disk_is_as_if_there_were_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "stamp").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_stamp(tmp_path / "stamp") is None


def test_no_stamp_is_none(tmp_path: Path) -> None:
    assert read_stamp(tmp_path / "stamp") is None
    assert read_stamp(tmp_path) is None
