"""Damage: nothing wrong reaches the caller; the error says where, and what mends it; `repair` goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import diachunk
from diachunk.api.loading.load import load, stream
from diachunk.errors import IntegrityError, LoadError, TransferIncomplete
from diachunk.limits import MiB
from diachunk.loader import blob as blobs
from diachunk.store.stamps import read_stamp
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import assert_same, blob_of, made, next_tick, pth, safetensors, stored, weights

FILES = {"model": "model/model.safetensors", "vocoder": "vocoder/w.pth"}
EACH_FORMAT = pytest.mark.parametrize("component", FILES)


@pytest.fixture
def held(tmp_path: Path, home: Path) -> Checkpoint:
    files = {FILES["model"]: safetensors(weights()), FILES["vocoder"]: pth(weights(seed=1))}
    return stored(tmp_path / "files", home, files)


def at(offset: int | float) -> damage.Damage:
    def spoil(path: Path) -> None:
        next_tick(path.parent)
        size = path.stat().st_size
        damage.flip(path, int(offset * size) if isinstance(offset, float) else offset % size)

    return spoil


SPOILS: dict[str, damage.Damage] = {
    "the first byte": at(0),
    "in the header": at(40),
    "in a large tensor": at(0.4),
    "in the middle": at(0.5),
    "near the end": at(-3000),
    "the last byte": at(-1),
    "cut off": damage.cut,
    "emptied": damage.cut_to_nothing,
}


@EACH_FORMAT
@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_damage_is_an_error_and_nothing_is_returned(
    held: Checkpoint, home: Path, component: str, spoil: Callable[[Path], None]
) -> None:
    """Also under `stamp`, and although the file's mtime was set back: its ctime was not."""
    spoil(blob_of(held, home, FILES[component]))
    with pytest.raises(IntegrityError) as caught:
        load(held.target, component, home=home)
    assert FILES[component] in caught.value.message
    assert f"diachunk verify {held.target} --repair" in caught.value.hint
    assert str(caught.value).isprintable()


def test_the_error_names_tensor_file_and_chunk(held: Checkpoint, home: Path) -> None:
    path = blob_of(held, home, FILES["model"])
    damage.flip(path, 2 * MiB)
    with pytest.raises(
        IntegrityError, match=r"chunk \d+ \([\d,]+ bytes at [\d,]+\), which holds embed.weight"
    ):
        load(held.target, "model", home=home)


@EACH_FORMAT
@pytest.mark.parametrize("options", [{}, {"dtype": "bf16"}, {"tensors": ["embed.weight", "ids"]}], ids=str)
@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_repair_mends_and_goes_on(
    held: Checkpoint, home: Path, component: str, spoil: Callable[[Path], None], options: dict[str, Any]
) -> None:
    wanted = dict(load(held.target, component, home=home, verify="always", **options))
    path = blob_of(held, home, FILES[component])
    spoil(path)
    loaded = load(held.target, component, home=home, repair=True, origins=[str(held.root)], **options)
    assert_same(loaded, wanted)
    if "tensors" not in options:  # else it was mended only if the damage was in their way
        assert path.read_bytes() == held.file(FILES[component]).read_bytes()
        # Wherever it was: headers are read before all else.
        assert loaded.report.repaired == [FILES[component]]
    again = load(held.target, component, home=home, **options)
    assert_same(again, wanted)
    assert not again.report.repaired


def test_repair_with_nothing_to_repair_from_says_both(held: Checkpoint, home: Path) -> None:
    damage.flip(blob_of(held, home, FILES["model"]), 2 * MiB)
    shutil.rmtree(held.root)
    with pytest.raises(IntegrityError, match=r"damaged.*not mended"):
        load(held.target, "model", home=home, repair=True, patience_s=1)


def test_a_repair_that_failed_can_be_made_again(held: Checkpoint, home: Path) -> None:
    damage.flip(blob_of(held, home, FILES["model"]), 5 * MiB)
    with pytest.raises(IntegrityError, match="not mended"):
        load(held.target, "model", home=home, repair=True, patience_s=1)
    with pytest.raises(LoadError, match="is not here") as caught:
        load(held.target, "model", home=home, origins=["http://mirror.lab/x"])
    assert (
        f"`diachunk fetch {held.target} --component model --origin http://mirror.lab/x`" in caught.value.hint
    )
    with pytest.raises(TransferIncomplete, match="not on this machine"):
        load(held.target, "model", home=home, repair=True, patience_s=1)
    loaded = load(held.target, "model", home=home, repair=True, origins=[str(held.root)])
    assert_same(loaded, weights())
    assert loaded.report.repaired == [FILES["model"]]
    assert_same(load(held.target, "model", home=home), weights())


def test_repair_never_writes_to_the_users_own_file(tmp_path: Path, home: Path) -> None:
    own = made(tmp_path / "mine", {FILES["model"]: safetensors(weights())})
    diachunk.publish([str(own.root / "model")], name="lab/tensors", home=home)
    spare = tmp_path / "spare"
    shutil.copytree(own.root / "model", spare)
    mine = own.file(FILES["model"])
    damage.flip(mine, 2 * MiB)
    spoilt = mine.read_bytes()
    with pytest.raises(IntegrityError):
        load("lab/tensors", home=home)
    loaded = load("lab/tensors", home=home, repair=True, origins=[str(spare)])
    assert_same(loaded, weights())
    assert mine.read_bytes() == spoilt


# --- what changes meanwhile ----------------------------------------------------------------------------------


def _replaced_after_the_look(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]
) -> None:
    """Puts a spoilt copy in the blob's place after its stamp was found to prove it, and before it is opened."""
    path = blob_of(held, home, FILES["model"])
    real = os.open
    done: list[int] = []

    def open_later(name: Any, *args: Any, **options: Any) -> int:
        if name == path and not done:
            done.append(1)
            copy = path.with_name("copy")
            shutil.copy2(path, copy)
            spoil(copy)
            os.replace(copy, path)
        return real(name, *args, **options)

    monkeypatch.setattr(os, "open", open_later)


def test_a_blob_replaced_between_look_and_open_is_hashed(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _replaced_after_the_look(held, home, monkeypatch, at(2 * MiB))
    with pytest.raises(IntegrityError, match=r"embed\.weight"):
        load(held.target, "model", home=home)


def test_a_blob_replaced_by_an_equal_one_is_hashed_and_loads(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _replaced_after_the_look(held, home, monkeypatch, lambda path: None)
    loaded = load(held.target, "model", home=home)
    assert_same(loaded, weights())
    assert loaded.report.verified_bytes >= loaded.report.total_bytes


@pytest.mark.parametrize("dtype", [None, "bf16"])
def test_a_trusted_blob_written_to_while_it_is_read_is_noticed(
    held: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, dtype: str | None
) -> None:
    path = blob_of(held, home, FILES["model"])
    real = blobs.Blob.forget

    def forget(self: blobs.Blob) -> None:
        real(self)
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(2 * MiB)
            file.write(b"other")

    monkeypatch.setattr(blobs.Blob, "forget", forget)
    with pytest.raises(LoadError, match="changed while it was loaded"):
        load(held.target, "model", home=home, dtype=dtype)
    monkeypatch.undo()


def test_a_new_link_to_a_blob_is_no_damage_and_costs_one_hashing(held: Checkpoint, home: Path) -> None:
    """Hard links change a file's ctime: it is hashed once more, and then trusted again."""
    path = blob_of(held, home, FILES["model"])
    next_tick(home)
    os.link(path, home / "elsewhere")
    stamp = read_stamp(path.with_name(f"{path.name}.stamp"))
    assert stamp is not None
    assert path.stat().st_ctime > stamp.verified_at
    assert load(held.target, "model", home=home).report.verified_bytes
    assert not load(held.target, "model", home=home).report.verified_bytes


def test_a_stream_hands_out_nothing_that_is_damaged(held: Checkpoint, home: Path) -> None:
    path = blob_of(held, home, FILES["model"])
    damage.flip(path, 2 * MiB)
    with pytest.raises(IntegrityError):
        list(stream(held.target, "model", home=home))
    taken = dict(stream_until_damage(held, home))
    assert "embed.weight" not in taken
    assert_same(taken, {name: weights()[name] for name in taken})


def stream_until_damage(held: Checkpoint, home: Path) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        yield from stream(held.target, "model", home=home)
    except IntegrityError:
        return


def test_a_stream_repairs_on_the_way(held: Checkpoint, home: Path) -> None:
    damage.flip(blob_of(held, home, FILES["model"]), 2 * MiB)
    found = dict(stream(held.target, "model", home=home, repair=True, origins=[str(held.root)]))
    assert_same(found, weights())
