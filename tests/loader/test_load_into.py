"""Modules: on the meta device they get the tensors, elsewhere new values; what does not match is said before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from diachunk.api.loading.load import load, load_into
from diachunk.api.loading.options import Verify
from diachunk.errors import IntegrityError, Interrupted, LoadError, UsageError
from diachunk.limits import MiB
from fixtures import damage
from fixtures.checkpoints import Checkpoint
from fixtures.tensors import blob_of, next_tick, pth, safetensors, stored

FILE = "model/model.safetensors"


class Net(nn.Module):
    """Tied weights, a buffer that is saved and one that is not, a norm."""

    steps: torch.Tensor

    def __init__(self, width: int = 700) -> None:
        super().__init__()
        self.embed = nn.Embedding(1500, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1500, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.arange(5))
        self.register_buffer("cache", torch.ones(3), persistent=False)


def values(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(5)
    return Net()


@pytest.fixture
def held(tmp_path: Path, home: Path, net: Net) -> Checkpoint:
    saved = values(net)
    del saved["head.weight"]  # as libraries save what is tied: once
    return stored(tmp_path / "files", home, {FILE: safetensors(saved)})


def on_meta(width: int = 700) -> Net:
    with torch.device("meta"):
        return Net(width)


@pytest.mark.parametrize("verify", ["stamp", "always"])
def test_a_module_on_the_meta_device_gets_the_tensors(
    held: Checkpoint, home: Path, net: Net, verify: Verify
) -> None:
    target = on_meta()
    filled = load_into(target, held.target, home=home, verify=verify)
    for name, tensor in values(net).items():
        assert torch.equal(target.state_dict()[name], tensor)
    assert target.head.weight is target.embed.weight
    assert target.embed.weight.requires_grad
    assert filled.matches
    assert set(filled.filled) == set(values(net))
    assert filled.left_on_meta == ("cache",)
    assert "cache" in str(filled)


def test_dtype_and_keep_dtype_hold_for_a_module(held: Checkpoint, home: Path) -> None:
    target = on_meta()
    load_into(target, held.target, home=home, dtype="bf16", keep_dtype="norm.*")
    assert (target.embed.weight.dtype, target.norm.weight.dtype) == (torch.bfloat16, torch.float32)
    assert target.steps.dtype == torch.int64


def test_an_existing_module_keeps_its_tensors_and_dtypes(held: Checkpoint, home: Path, net: Net) -> None:
    torch.manual_seed(6)
    target = Net().to(torch.float16)
    before = target.embed.weight
    load_into(target, held.target, home=home)
    assert target.embed.weight is before
    assert torch.equal(target.embed.weight, net.embed.weight.half())
    assert target.norm.weight.dtype == torch.float16


def test_the_cast_module_computes_what_the_original_does(held: Checkpoint, home: Path, net: Net) -> None:
    target = on_meta()
    load_into(target, held.target, home=home)
    tokens = torch.tensor([1, 2, 3])
    assert torch.equal(target.head(target.norm(target.embed(tokens))), net.head(net.norm(net.embed(tokens))))


def test_mismatches_are_reported_and_nothing_is_touched(held: Checkpoint, home: Path) -> None:
    target = Net()
    target.extra = nn.Linear(2, 2)
    del target.norm
    before = values(target)
    with pytest.raises(LoadError) as caught:
        load_into(target, held.target, home=home)
    message = caught.value.message
    assert "2 missing in the checkpoint (extra.weight, extra.bias)" in message
    assert "2 not in the module (norm.bias, norm.weight)" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_not_strict_fills_what_matches(held: Checkpoint, home: Path, net: Net) -> None:
    target = Net()
    target.extra = nn.Linear(2, 2)
    del target.norm
    filled = load_into(target, held.target, home=home, strict=False)
    assert filled.missing == ("extra.weight", "extra.bias")
    assert filled.unexpected == ("norm.bias", "norm.weight")
    assert torch.equal(target.embed.weight, net.embed.weight)


@pytest.mark.parametrize("strict", [True, False])
def test_another_shape_is_always_refused(held: Checkpoint, home: Path, strict: bool) -> None:
    with pytest.raises(LoadError, match=r"embed\.weight \[1500, 700\], not \[1500, 600\]"):
        load_into(on_meta(600), held.target, home=home, strict=strict)


def test_names_can_be_mapped(tmp_path: Path, home: Path) -> None:
    saved = {"net.0.weight": torch.randn(3, 2), "net.0.bias": torch.randn(3), "old": torch.ones(4)}
    held = stored(tmp_path / "files", home, {"model/w.pth": pth(saved)})
    target = nn.Sequential(nn.Linear(2, 3))
    target.register_parameter("new", nn.Parameter(torch.zeros(4)))
    load_into(target, held.target, home=home, prefix="net.", rename={"old": "new"})
    assert torch.equal(target.get_parameter("0.weight"), saved["net.0.weight"])
    assert torch.equal(target.get_parameter("new"), torch.ones(4))


def test_only_some_tensors_need_not_be_all(held: Checkpoint, home: Path, net: Net) -> None:
    target = Net()
    kept = target.embed.weight.detach().clone()
    filled = load_into(target, held.target, home=home, tensors="norm.*")
    assert set(filled.filled) == {"norm.weight", "norm.bias"}
    assert torch.equal(target.embed.weight, kept)


def test_damage_leaves_wrong_values_nowhere(held: Checkpoint, home: Path, net: Net) -> None:
    next_tick(home)
    damage.flip(blob_of(held, home, FILE), 2 * MiB)
    torch.manual_seed(7)
    target = Net()
    before = values(target)
    with pytest.raises(IntegrityError, match=r"embed\.weight"):
        load_into(target, held.target, home=home)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name]) or torch.equal(tensor, values(net)[name])
    assert torch.equal(target.embed.weight, before["embed.weight"])


def test_what_is_no_module_is_told_as_what_it_is(tmp_path: Path, home: Path) -> None:
    held = stored(tmp_path / "files", home, {FILE: safetensors(values(Net()))})
    for wrong, said in (
        (Net, "its class: make one first"),
        (held.target, "is no module"),
        ({}, "is no module"),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            load_into(cast(Any, wrong), held.target, home=home)
        assert "load_into(MODULE" in caught.value.hint
    with pytest.raises(UsageError, match="is no module"):
        load_into(cast(Any, held.target), cast(Any, Net()), home=home)


@pytest.mark.parametrize(
    "call", ["load('a', 'b')", "load_into(None, 'a', 'b')", "stream('a', 'b')", "safe_open('a', 'b')"]
)
def test_without_pytorch_all_of_them_say_what_to_install(call: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import diachunk; diachunk.{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1].endswith(
        "LoadError: loading needs PyTorch (pip install 'diachunk[load]')"
    )


def test_a_pytorch_that_does_not_start_is_not_told_as_one_that_is_missing(tmp_path: Path) -> None:
    broken = tmp_path / "torch"
    broken.mkdir()
    (broken / "__init__.py").write_text(
        "raise ImportError('libcudart.so.12: cannot open shared object file')\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import diachunk; diachunk.load('a')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    last = done.stderr.splitlines()[-1]
    assert "does not start: libcudart.so.12: cannot open shared object file" in last
    assert "pip install" not in last


def test_what_does_not_fit_is_not_counted_as_filled(held: Checkpoint, home: Path) -> None:
    """A head of another size is what fine-tuning begins with: the rest is loaded by naming it."""
    other = on_meta(700)
    other.norm = nn.LayerNorm(300, device="meta")
    with pytest.raises(LoadError, match=r": 3 would be filled; 2 of another shape \(norm.weight") as caught:
        load_into(other, held.target, home=home)
    assert "tensors=" in caught.value.hint
    filled = load_into(other, held.target, home=home, tensors=["embed.*", "steps"])
    assert filled.filled == ("steps", "embed.weight", "head.weight")


def test_ctrl_c_is_told_as_load_tells_it(held: Checkpoint, home: Path) -> None:
    def press(event: object) -> None:
        raise KeyboardInterrupt

    for call in (
        lambda: load_into(Net(), held.target, home=home, progress=press),
        lambda: load(held.target, home=home, progress=press),
    ):
        with pytest.raises(Interrupted, match="stopped"):
            call()


def test_the_module_of_a_training_checkpoint(tmp_path: Path, home: Path) -> None:
    module = nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(30)).sum().backward()
    optimizer.step()
    tree = {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}
    held = stored(tmp_path / "files", home, {"run.pth": pth(tree)})
    empty = nn.Linear(30, 20)
    with pytest.raises(LoadError, match="does not fit") as caught:
        load_into(empty, held.target, home=home, prefix="model.")
    assert caught.value.hint == "tensors='model.*' leaves out what does not begin with the prefix"
    for _ in range(2):
        empty = nn.Linear(30, 20)
        filled = load_into(empty, held.target, home=home, prefix="model.", tensors="model.*")
        assert empty.weight.equal(module.weight)
        assert filled.metadata["epoch"] == 7
        assert filled.metadata["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
