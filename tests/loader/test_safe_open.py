"""Tensors by name, as the safetensors library's function of that name gives them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors import safe_open as reference

from diachunk.api.loading.access import safe_open
from diachunk.errors import IntegrityError, UsageError
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.loader.landing import Landing
from fixtures import damage
from fixtures.tensors import blob_of, cut_anywhere, next_tick, pth, safetensors, stored

FILE = "model/model.safetensors"


@pytest.mark.parametrize("format_", ["safetensors", "pth"])
def test_safe_open_gives_tensors_by_name(tmp_path: Path, home: Path, format_: str) -> None:
    own = {
        "a": torch.randn(3 * CHUNK_BYTES // 4),
        "b": torch.arange(12).reshape(3, 4),
        "[odd]*": torch.ones(2),
    }
    data = safetensors(own, {"x": "y"}) if format_ == "safetensors" else pth(own)
    held = stored(tmp_path / "files", home, {f"model/model.{format_}": data})
    with safe_open(held.target, "model", framework="pt", device="cpu", home=home, verify="always") as file:
        assert sorted(file.keys()) == sorted(own)
        for name in file.keys():  # noqa: SIM118 - it is no dict, and this is how callers write it
            assert torch.equal(file.get_tensor(name), own[name])
        assert torch.equal(file.get_slice("b")[1:, 2], own["b"][1:, 2])
        assert file.get_slice("b").get_shape() == [3, 4]
        with pytest.raises(UsageError, match="'c'"):
            file.get_tensor("c")


def test_shape_and_dtype_are_told_without_reading_the_tensor(tmp_path: Path, home: Path) -> None:
    """Programs ask for both of every tensor to plan by, with the function that this stands in for."""
    own = {"a": torch.randn(500_000), "b": torch.zeros(2, 3, dtype=torch.int64), "c": torch.ones(4).bool()}
    held = stored(tmp_path / "files", home, {FILE: safetensors(own)})
    next_tick(home)
    damage.flip(blob_of(held, home, FILE), 1 * MiB)
    with (
        safe_open(held.target, home=home, dtype="bf16") as file,
        reference(tmp_path / "files" / FILE, framework="pt") as other,
    ):
        for name in ("b", "c"):
            assert file.get_slice(name).get_shape() == other.get_slice(name).get_shape()
            assert file.get_slice(name).get_dtype() == other.get_slice(name).get_dtype()
        whole = file.get_slice("a")
        assert (whole.get_shape(), whole.get_dtype()) == ([500_000], "BF16")
        with pytest.raises(IntegrityError):
            whole[:2]
        with pytest.raises(UsageError, match="'d'"):
            file.get_slice("d")


def test_who_asks_a_closed_file_is_told_that_it_is_closed(tmp_path: Path, home: Path) -> None:
    held = stored(tmp_path / "files", home, {FILE: safetensors({"a": torch.ones(3)})})
    with safe_open(held.target, home=home) as file:
        part = file.get_slice("a")
    with pytest.raises(UsageError, match="is closed"):
        file.get_tensor("a")
    with pytest.raises(UsageError, match="is closed"):
        part[:1]


def test_safe_open_notices_damage_where_it_is_read(tmp_path: Path, home: Path) -> None:
    own = {"a": torch.randn(500_000), "b": torch.randn(500_000)}
    held = stored(tmp_path / "files", home, {FILE: safetensors(own)})
    next_tick(home)
    damage.flip(blob_of(held, home, FILE), 3 * MiB)
    with safe_open(held.target, home=home) as file:
        assert torch.equal(file.get_tensor("a"), own["a"])
        with pytest.raises(IntegrityError, match="holds b"):
            file.get_tensor("b")


def test_one_tensor_of_many_costs_no_look_at_the_others(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever takes all of them one by one pays for the square of their number."""
    tensors = {f"t.{number}": torch.full((1000,), float(number)) for number in range(300)}
    held = cut_anywhere(
        tmp_path / "cut", home, "m.safetensors", safetensors(tensors), itertools.cycle([4000])
    )
    looks = 0
    whole = Landing.storages_in

    def counted(self: Landing, file: int, start: int, end: int) -> list[int]:
        nonlocal looks
        looks += 1
        return whole(self, file, start, end)

    monkeypatch.setattr(Landing, "storages_in", counted)
    with safe_open(held.target, home=home, verify="always") as file:
        for name in ("t.0", "t.150", "t.299"):
            assert torch.equal(file.get_tensor(name), tensors[name])
    assert 0 < looks < 40
