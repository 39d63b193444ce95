"""A file of the user's own is copied into memory, not mapped: its owner may save over it at any time."""

from __future__ import annotations

from pathlib import Path

import pytest

import diachunk
from diachunk.errors import LoadError

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_saving_over_the_users_file_changes_no_tensor_that_was_loaded(tmp_path: Path, suffix: str) -> None:
    mine = tmp_path / f"weights{suffix}"
    wanted = torch.arange(1_000_000, dtype=torch.float32)
    save = safetensors.save_file if suffix == ".safetensors" else torch.save
    save({"w": wanted}, mine)
    home = tmp_path / "store"
    diachunk.publish([mine], name="lab/x", home=home)
    loaded = diachunk.load("lab/x", home=home)
    with open(mine, "r+b") as file:  # in place, as torch.save and save_file do
        size = file.seek(0, 2)
        file.seek(size // 2)
        file.write(b"\xff" * (size // 4))
    assert torch.equal(loaded["w"], wanted)


def test_a_file_of_the_store_is_mapped(tmp_path: Path) -> None:
    mine = tmp_path / "weights.safetensors"
    safetensors.save_file({"w": torch.arange(1_000_000, dtype=torch.float32)}, mine)
    home = tmp_path / "store"
    diachunk.publish([mine], name="lab/x", copy=True, home=home)
    assert diachunk.load("lab/x", home=home).report.mapped_bytes > 3_900_000


@pytest.mark.parametrize(
    ("change", "told"), [("save", "was changed since"), ("remove", "is gone"), ("move", "is gone")]
)
def test_who_saved_over_what_he_published_is_told_which_file_it_was(
    tmp_path: Path, change: str, told: str
) -> None:
    mine = tmp_path / "weights.safetensors"
    safetensors.save_file({"w": torch.arange(1000.0)}, mine)
    home = tmp_path / "store"
    diachunk.publish([mine], name="lab/x", home=home)
    if change == "save":
        safetensors.save_file({"w": torch.arange(2000.0)}, mine)
    elif change == "move":
        mine.rename(tmp_path / "other.safetensors")
    else:
        mine.unlink()
    with pytest.raises(LoadError, match=f"is not here: .*weights.safetensors, where it was, {told}"):
        diachunk.load("lab/x", home=home)
