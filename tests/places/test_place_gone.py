"""What was placed and taken away by hand keeps nothing; a disk that is not mounted now keeps everything."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
import time
from pathlib import Path

import pytest

import diachunk
from diachunk.places import gone
from diachunk.store.store import Store
from fixtures.command_line import run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with a checkpoint that only its places keep."""
    files = tmp_path / "files"
    files.mkdir()
    (files / "weights.bin").write_bytes(b"w" * 100_000)
    (files / "config.json").write_bytes(b"{}")
    monkeypatch.setenv("DIACHUNK_HOME", str(tmp_path / "store"))
    diachunk.publish([files], name="lab/x", copy=True)
    return tmp_path / "store"


@pytest.fixture
def shown(home: Path, tmp_path: Path) -> Path:
    """Where it is shown, by links into the store."""
    shown = tmp_path / "disk" / "shown"
    diachunk.place("lab/x", into=[shown], link_mode="symlink")
    age(home)
    return shown


def age(home: Path) -> None:
    """A day goes by, and longer."""
    for path in (home / "manifests").iterdir():
        os.utime(path, (1e9, 1e9))


def blobs(home: Path) -> int:
    return sum(len(each.name) == 64 for each in (home / "blobs").rglob("*"))


def emptied(shown: Path) -> None:
    for each in shown.iterdir():
        each.unlink()


def collect(*, dry_run: bool = False) -> list[str]:
    return diachunk.gc(older_than_s=3600, dry_run=dry_run).places


def test_what_was_taken_away_by_hand_is_forgotten_and_said(home: Path, shown: Path) -> None:
    emptied(shown)
    would = diachunk.gc(older_than_s=3600, dry_run=True)
    assert would.places == [f"would forget that lab/x@main was placed in {shown}: nothing of it is left"]
    assert "checkpoint" in {each.kind for each in would.removed}
    assert blobs(home) == 2
    assert collect() == [f"lab/x@main is not placed in {shown} any more: nothing of it is left there"]
    assert (blobs(home), list((home / "placed").glob("*.json"))) == (0, [])


def test_as_long_as_one_name_is_there_all_is_kept(home: Path, shown: Path) -> None:
    (shown / "weights.bin").unlink()
    assert collect() == []
    assert blobs(home) == 2


@pytest.mark.parametrize("mount_point", ["gone", "empty", "made anew", "used by others"])
def test_a_disk_that_is_not_mounted_now_is_kept_and_named(
    home: Path, shown: Path, tmp_path: Path, mount_point: str
) -> None:
    shown.parent.rename(tmp_path / "unplugged")
    if mount_point != "gone":
        shown.parent.mkdir()
    if mount_point in ("made anew", "used by others"):
        shown.mkdir()
    if mount_point == "used by others":
        (shown / "another program's").write_text("")
    (said,) = collect()
    assert said.startswith(f"lab/x@main is kept for {shown}, which is not there now (not mounted?)")
    if shown.parent.exists():
        shutil.rmtree(shown.parent)
    (tmp_path / "unplugged").rename(shown.parent)
    assert (shown / "weights.bin").read_bytes() == b"w" * 100_000
    assert collect() == []


def test_the_command_that_it_names_forgets_a_place_that_is_gone_for_good(home: Path, shown: Path) -> None:
    shutil.rmtree(shown.parent)
    (said,) = collect()
    done = run(*shlex.split(said.partition("gone for good: diachunk ")[2]))
    assert done.returncode == 0, done.stderr
    age(home)
    assert collect() == []
    assert blobs(home) == 0


@pytest.mark.parametrize("root_id", [None, [], [1], [1, 2, 3], "12", [1.5, float("inf")], ["1", "2"], {}])
def test_of_a_record_that_does_not_say_which_directory_it_was_nothing_is_forgotten(
    home: Path, shown: Path, root_id: object
) -> None:
    (record,) = (home / "placed").glob("*.json")
    value = json.loads(record.read_text())
    value["places"][0]["root_id"] = root_id
    record.write_text(json.dumps(value))
    emptied(shown)
    assert "is kept for" in collect()[0]
    assert blobs(home) == 2


def test_one_of_two_places_is_forgotten_alone(home: Path, shown: Path, tmp_path: Path) -> None:
    diachunk.place("lab/x", into=[tmp_path / "other"], link_mode="symlink")
    age(home)
    emptied(shown)
    assert len(collect()) == 1
    assert (tmp_path / "other" / "weights.bin").read_bytes() == b"w" * 100_000
    assert collect() == []


def test_doctor_names_both_with_their_cures(home: Path, shown: Path, tmp_path: Path) -> None:
    diachunk.place("lab/x", into=[tmp_path / "other"], link_mode="symlink")
    assert told_by_doctor() == {"1 checkpoint placed for other programs, each of them there": ""}
    emptied(shown)
    (tmp_path / "other").rename(tmp_path / "unplugged")
    told = told_by_doctor()
    gone = f"lab/x@main was placed in {shown}, and nothing of it is left there: that keeps it from gc"
    unseen = f"lab/x@main is kept for {tmp_path / 'other'}, which is not there now: not mounted?"
    assert told[gone] == "diachunk gc"
    assert told[unseen].startswith("diachunk place lab/x@main --undo --into ")


def told_by_doctor() -> dict[str, str]:
    events = [json.loads(line) for line in run("doctor", "--json", "--offline").stdout.splitlines()]
    words = ("placed", "is kept for")
    return {
        each["what"]: each["cure"] for each in events if any(word in each.get("what", "") for word in words)
    }


def test_the_verb_says_so(home: Path, shown: Path) -> None:
    emptied(shown)
    done = run("gc", "--older-than", "1h")
    assert done.returncode == 0
    assert "lab/x@main is not placed in" in done.stderr
    assert Store.open(home).catalog.placed() == set()


def test_what_only_marked_the_directory_goes_as_well(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would know it any more, and it belongs to nothing that is there."""
    files = tmp_path / "of-the-hub"
    files.mkdir()
    (files / "weights.bin").write_bytes(b"h" * 1000)
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    upstream = {"": {"kind": "hub", "repository": "lab/h", "commit": "c" * 40}}
    diachunk.publish([files], name="lab/h", copy=True, upstream=upstream)
    diachunk.place("lab/h", into=["hub"])
    assert (cache / "CACHEDIR.TAG").is_file()
    shutil.rmtree(cache / "models--lab--h")
    collect()
    assert list(cache.iterdir()) == []
    assert list((home / "placed").glob("*.json")) == []


def test_a_disk_that_gives_no_answer_is_kept_and_holds_up_nobody(
    home: Path, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    own = os.lstat

    def lstat(path: str | os.PathLike[str], **options: int) -> os.stat_result:
        if os.fspath(path).startswith(str(shown)):
            answers.wait()
        return own(path, **options)

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(gone, "_PATIENCE_S", 0.5)
    began_at = time.monotonic()
    try:
        (said,) = collect()
    finally:
        answers.set()
    assert time.monotonic() - began_at < 10
    assert said.startswith(f"lab/x@main is kept for {shown}, which gives no answer")
    assert blobs(home) == 2
