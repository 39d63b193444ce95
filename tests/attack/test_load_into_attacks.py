"""Modules that do not fit what is loaded into them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diachunk.api.loading.load import load_into
from diachunk.errors import LoadError, UsageError
from fixtures.load_ends import nothing_left
from fixtures.tensors import safetensors, stored

__all__ = ["nothing_left"]

# --- modules ---------------------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    three: torch.nn.Parameter

    def __init__(self, *, shape: tuple[int, ...] = (3, 4), dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.zeros(shape, dtype=dtype))
        self.two = torch.nn.Parameter(torch.zeros(5))
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))


def checkpoint(tmp_path: Path, home: Path, **more: torch.Tensor) -> str:
    tensors = {"one": torch.ones(3, 4), "two": torch.ones(5), "count": torch.arange(2), **more}
    return stored(tmp_path / "files", home, {"m/w.safetensors": safetensors(tensors)}).target


def test_a_complex_tensor_never_loses_its_imaginary_part(tmp_path: Path, home: Path) -> None:
    target = checkpoint(tmp_path, home, one=torch.complex(torch.ones(3, 4), torch.ones(3, 4)))
    with pytest.raises(LoadError, match="one"):
        load_into(Net(), target, home=home)


def test_a_fraction_is_never_cut_off(tmp_path: Path, home: Path) -> None:
    """Floats do not go into a buffer of integers."""
    target = checkpoint(tmp_path, home, count=torch.tensor([0.5, 1.5]))
    with pytest.raises(LoadError, match="count"):
        load_into(Net(), target, home=home)


def test_two_names_for_one_place_are_refused(tmp_path: Path, home: Path) -> None:
    target = checkpoint(tmp_path, home, other=torch.zeros(5))
    with pytest.raises(UsageError, match="two"):
        load_into(Net(), target, home=home, rename={"two": "two", "other": "two"}, strict=False)


def test_what_is_renamed_is_not_there_under_its_own_name(tmp_path: Path, home: Path) -> None:
    """Else `one` was told to be filled, and was not."""
    target = checkpoint(tmp_path, home, three=torch.full((3, 4), 3.0))
    net = Net()
    net.three = torch.nn.Parameter(torch.zeros(3, 4))
    filled = load_into(net, target, home=home, rename={"one": "three"}, strict=False)
    assert filled.missing == ("one",)
    assert filled.unexpected == ("three",)
    assert net.three.equal(torch.ones(3, 4))
    with pytest.raises(LoadError, match="missing"):
        load_into(net, target, home=home, rename={"one": "three"})


def test_a_name_that_is_mapped_to_nowhere_is_refused(tmp_path: Path, home: Path) -> None:
    target = checkpoint(tmp_path, home)
    with pytest.raises((UsageError, LoadError), match="tow"):
        load_into(Net(), target, home=home, rename={"two": "tow"}, strict=False)


@pytest.mark.parametrize("shape", [(4, 3), (12,), (3, 4, 1), (1, 3, 4), (3, 1), ()])
@pytest.mark.parametrize("meta", [False, True])
def test_a_shape_that_only_broadcasts_is_another_shape(
    tmp_path: Path, home: Path, shape: tuple[int, ...], meta: bool
) -> None:
    target = checkpoint(tmp_path, home)
    with torch.device("meta" if meta else "cpu"):
        net = Net(shape=shape)
    before = {name: each.clone() for name, each in net.state_dict().items()}
    with pytest.raises(LoadError, match="one"):
        load_into(net, target, home=home, strict=False)
    for name, each in net.state_dict().items():
        assert each.device == before[name].device
        assert meta or each.equal(before[name])


def test_a_frozen_meta_module_stays_frozen_and_a_trained_one_can_be_trained(
    tmp_path: Path, home: Path
) -> None:
    target = checkpoint(tmp_path, home)
    with torch.device("meta"):
        net = Net()
    net.two.requires_grad_(False)
    load_into(net, target, home=home)
    assert (net.one.requires_grad, net.two.requires_grad) == (True, False)
    (net.one.sum() * net.two.sum()).backward()  # type: ignore[no-untyped-call] # torch's
    assert net.one.grad is not None


def test_a_module_half_on_meta_is_filled_whole(tmp_path: Path, home: Path) -> None:
    net = Net()
    net.two = torch.nn.Parameter(torch.empty(5, device="meta"))
    kept = net.one
    load_into(net, checkpoint(tmp_path, home), home=home)
    assert net.one is kept
    assert net.one.equal(torch.ones(3, 4))
    assert net.two.equal(torch.ones(5))
