"""Loading from files that change, by stamps that lie: what reaches the caller is right, or nothing does."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diachunk.api.loading.load import load
from diachunk.digest import digest_of
from diachunk.errors import DiachunkError, IntegrityError, LoadError
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.loader import blob as blobs
from diachunk.manifest import ChunkList, Component, FileEntry, build, encode
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.load_attack import stamp_of
from fixtures.load_ends import nothing_left
from fixtures.tensors import assert_same, blob_of, pth, safetensors, stored, weights

__all__ = ["nothing_left"]

FILES = {"model": "model/model.safetensors", "vocoder": "vocoder/w.pth"}
EACH_FORMAT = pytest.mark.parametrize("component", FILES)


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    files = {FILES["model"]: safetensors(weights()), FILES["vocoder"]: pth(weights())}
    return stored(tmp_path / "files", home, files)


# --- stamps ----------------------------------------------------------------------------------------------------


def restamped(path: Path, **changes: object) -> None:
    known = json.loads(stamp_of(path).read_bytes())
    stamp_of(path).chmod(0o644)
    stamp_of(path).write_text(json.dumps({**known, **changes}))


def test_a_stamp_from_the_future_proves_nothing(held: Checkpoint, home: Path) -> None:
    """A clock that ran ahead must not hide for hours what is done to a file whose mtime is set back."""
    path = blob_of(held, home, FILES["model"])
    restamped(path, verified_at=time.time() + 3600)
    damage.flip(path, 2 * MiB)
    with pytest.raises(IntegrityError):
        load(held.target, "model", home=home)


@pytest.mark.parametrize("verified_at", [float("inf"), float("nan"), -1.0, 0.0])
def test_a_stamp_of_no_time_proves_nothing(held: Checkpoint, home: Path, verified_at: float) -> None:
    path = blob_of(held, home, FILES["model"])
    restamped(path, verified_at=verified_at)
    damage.flip(path, 2 * MiB)
    with pytest.raises(IntegrityError):
        load(held.target, "model", home=home)


def test_the_stamp_of_another_file_proves_nothing(held: Checkpoint, home: Path) -> None:
    one, other = (blob_of(held, home, FILES[name]) for name in FILES)
    damage.flip(one, 2 * MiB)
    shutil.copy2(stamp_of(other), stamp_of(one))
    with pytest.raises(IntegrityError):
        load(held.target, "model", home=home)


def test_a_stamp_is_of_one_list_of_chunks(tmp_path: Path, home: Path, held: Checkpoint) -> None:
    """Another manifest claims the same file, and says other things of its chunks: it is not believed."""
    data = held.file(FILES["model"]).read_bytes()
    liar = lying(tmp_path / "liar.json", data)
    for options in ({}, {"verify": "always"}, {"dtype": "bf16"}):
        with pytest.raises(IntegrityError):
            load(liar, home=home, **options)  # type: ignore[arg-type] # options of several types
    with pytest.raises(DiachunkError):
        load(liar, home=home, repair=True, origins=[str(held.root)], patience_s=1)
    assert_same(load(held.target, "model", home=home), weights())


def lying(target: Path, data: bytes) -> Path:
    sizes = array("I", [min(CHUNK_BYTES, len(data) - at) for at in range(0, len(data), CHUNK_BYTES)])
    digests = b"".join(digest_of(b"%d" % number) for number in range(len(sizes)))
    entry = FileEntry("model.safetensors", len(data), digest_of(data), ChunkList(digests, sizes))
    target.write_bytes(encode(build("lab/liar", "main", [Component("model", (entry,))])))
    return target


# --- files that change -----------------------------------------------------------------------------------------


def test_a_link_in_place_of_a_blob_is_read_and_hashed(held: Checkpoint, home: Path, tmp_path: Path) -> None:
    path = blob_of(held, home, FILES["model"])
    elsewhere = tmp_path / "elsewhere"
    shutil.copy2(path, elsewhere)
    damage.flip(elsewhere, 2 * MiB)
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(DiachunkError):
        load(held.target, "model", home=home)


@pytest.mark.parametrize("other", ["fifo", "directory", "device"])
def test_what_is_no_file_is_never_waited_for(held: Checkpoint, home: Path, other: str) -> None:
    path = blob_of(held, home, FILES["model"])
    path.unlink()
    if other == "fifo":
        os.mkfifo(path)
    elif other == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DiachunkError):
        load(held.target, "model", home=home)


def spoil_at(monkeypatch: pytest.MonkeyPatch, method: str, spoil: Callable[[], None], at_call: int) -> None:
    """Does something just before call number `at_call` of a method of the open file."""
    real, calls, lock = getattr(blobs.Blob, method), [0], threading.Lock()

    def spoilt(self: blobs.Blob, *args: Any, **options: Any) -> Any:
        with lock:
            calls[0] += 1
            mine = calls[0] == at_call
        if mine:
            spoil()
        return real(self, *args, **options)

    monkeypatch.setattr(blobs.Blob, method, spoilt)


def overwrite(path: Path) -> None:
    path.chmod(0o644)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 4)
        file.write(os.urandom(size // 2))


@EACH_FORMAT
@pytest.mark.parametrize("options", [{}, {"verify": "always"}, {"dtype": "bf16"}], ids=str)
@pytest.mark.parametrize("at_call", [2, 4])
def test_a_file_that_is_overwritten_while_it_is_hashed_gives_nothing_wrong(
    held: Checkpoint,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    component: str,
    options: dict[str, Any],
    at_call: int,
) -> None:
    """Either the old bytes, all of them, or an error."""
    path = blob_of(held, home, FILES[component])
    stamp_of(path).unlink()
    wanted = load(held.target, component, home=home, verify="always", dtype=options.get("dtype"))
    stamp_of(path).unlink(missing_ok=True)
    spoil_at(monkeypatch, "check", lambda: overwrite(path), at_call)
    try:
        loaded = load(held.target, component, home=home, **options)
    except (IntegrityError, LoadError):
        return
    assert_same(loaded, wanted)


@EACH_FORMAT
def test_what_was_always_verified_is_the_callers_own(held: Checkpoint, home: Path, component: str) -> None:
    loaded = load(held.target, component, home=home, verify="always")
    overwrite(blob_of(held, home, FILES[component]))
    assert_same(loaded, weights())
    assert not loaded.report.mapped_bytes


def test_a_file_cut_off_while_it_is_read_is_an_error(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = blob_of(held, home, FILES["model"])
    path.chmod(0o644)
    spoil_at(monkeypatch, "read", lambda: os.truncate(path, 3 * MiB), 3)
    with pytest.raises((IntegrityError, LoadError)):
        load(held.target, "model", home=home, verify="always", dtype="bf16")


def test_a_grown_file_is_not_taken_for_the_old_one(held: Checkpoint, home: Path) -> None:
    path = blob_of(held, home, FILES["model"])
    damage.append(path)
    try:
        loaded = load(held.target, "model", home=home)
    except DiachunkError:
        return
    assert_same(loaded, weights())
