"""A file of the user's own is copied into memory, not mapped: its owner may save over it at any time."""

from __future__ import annotations

from pathlib import Path

import pytest

import diachunk

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
