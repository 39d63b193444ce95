"""What a load meets that is in an unusual state: modules of every kind, tensors that the caller changes meanwhile."""

from __future__ import annotations

import gc
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diachunk.api.loading.load import load, load_into, stream
from diachunk.errors import LoadError
from diachunk.limits import MiB
from diachunk.loader.device import Piece
from diachunk.loader.events import LoadEvent, LoadPlan, LoadProgress
from diachunk.loader.landing import Landing
from fixtures.load_ends import nothing_left
from fixtures.tensors import cut_anywhere, pth, safetensors, stored

__all__ = ["nothing_left"]


def of(tmp_path: Path, home: Path, tensors: dict[str, torch.Tensor]) -> str:
    return stored(tmp_path / "files", home, {"m/w.safetensors": safetensors(tensors)}).target


# --- a chunk that holds what is mapped and what is cast ------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path, home: Path) -> str:
    """One chunk: integers, which are mapped, under two names, and floats, which are cast."""
    ids = torch.arange(1, 1001)
    data = pth({"ids": ids, "tied": ids, "weight": torch.ones(1000)})
    return cut_anywhere(tmp_path / "files", home, "w.pth", data, iter(lambda: 4 * MiB, 0)).target


def test_what_the_caller_changed_is_not_written_again(
    mixed: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane that comes late must not put the file's bytes into a tensor that was handed out."""
    pieces, arrived = Landing.pieces, Landing.arrived
    changed, written = threading.Event(), threading.Event()

    def late(self: Landing, *args: Any) -> list[Piece]:
        assert changed.wait(10)
        return pieces(self, *args)

    def noting(self: Landing, *args: Any) -> int:
        written.set()
        return arrived(self, *args)

    monkeypatch.setattr(Landing, "pieces", late)
    monkeypatch.setattr(Landing, "arrived", noting)
    running = iter(stream(mixed, home=home, dtype="bf16"))
    name, ids = next(running)
    assert name == "ids"
    ids.zero_()
    changed.set()
    assert written.wait(10)
    rest = dict(running)
    assert not ids.any()
    assert rest["weight"].eq(1).all()


def test_bytes_that_are_mapped_are_told_once(mixed: str, home: Path) -> None:
    events: list[LoadEvent] = []
    load(mixed, home=home, dtype="bf16", progress=events.append)
    plan = next(each for each in events if isinstance(each, LoadPlan))
    assert sum(each.bytes for each in events if isinstance(each, LoadProgress)) == plan.total_bytes


def test_a_load_in_inference_mode(mixed: str, home: Path) -> None:
    with torch.inference_mode():
        found = dict(load(mixed, home=home, dtype="bf16"))
        streamed = dict(stream(mixed, home=home, dtype="bf16"))
    for each in (found, streamed):
        assert each["ids"].equal(torch.arange(1, 1001))
        assert each["weight"].eq(1).all()


# --- what is kept, what is left ------------------------------------------------------------------------------------


def test_half_characters_stay_halves(tmp_path: Path, home: Path) -> None:
    """JSON makes one character of two escaped halves."""
    halves = json.loads('"\\ud83d"') + json.loads('"\\ude00"')
    held = stored(tmp_path / "files", home, {"m/w.pth": pth({"w": torch.ones(2), "said": halves})})
    for _ in range(2):
        assert load(held.target, home=home).metadata == {"said": halves}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files by /proc")
def test_streams_that_nobody_iterates_leave_no_files_open(tmp_path: Path, home: Path) -> None:
    target = of(tmp_path, home, {"w": torch.ones(5)})
    load(target, home=home)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(8):
        stream(target, home=home)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


# --- modules -------------------------------------------------------------------------------------------------------


class Extra(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.scale = 1.0

    def get_extra_state(self) -> torch.Tensor:
        return torch.tensor([self.scale])

    def set_extra_state(self, state: torch.Tensor) -> None:
        self.scale = float(state[0])


@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_state_that_a_module_makes_anew_is_not_told_to_be_filled(
    tmp_path: Path, home: Path, where: str
) -> None:
    target = of(tmp_path, home, {"weight": torch.ones(2), "_extra_state": torch.tensor([7.0])})
    module = Extra().to(where)
    with pytest.raises(LoadError, match="_extra_state") as caught:
        load_into(module, target, home=home)
    assert "load_state_dict" in (caught.value.hint or "")
    assert module.weight.device.type == where
    if where == "cpu":
        assert not module.weight.any()


class Fused(nn.Module):
    """Its state dict shows halves of one parameter, as views."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.zeros(4))
        self.register_state_dict_post_hook(self._split)  # type: ignore[no-untyped-call]

    @staticmethod
    def _split(module: nn.Module, state: dict[str, torch.Tensor], prefix: str, _: object) -> None:
        both = state.pop(f"{prefix}both")
        state[f"{prefix}first"], state[f"{prefix}second"] = both[:2], both[2:]


def test_views_of_a_parameter_are_filled(tmp_path: Path, home: Path) -> None:
    target = of(tmp_path, home, {"first": torch.ones(2), "second": torch.full((2,), 2.0)})
    module = Fused()
    load_into(module, target, home=home)
    assert module.both.tolist() == [1, 1, 2, 2]


def test_a_lazy_module_has_no_shape_yet(tmp_path: Path, home: Path) -> None:
    target = of(tmp_path, home, {"weight": torch.ones(3, 2), "bias": torch.ones(3)})
    with pytest.raises(LoadError, match="lazy"):
        load_into(nn.LazyLinear(3), target, home=home)


def test_a_module_of_inference_mode(tmp_path: Path, home: Path) -> None:
    target = of(tmp_path, home, {"weight": torch.ones(3, 2), "bias": torch.ones(3)})
    with torch.inference_mode():
        module = nn.Linear(2, 3)
    with pytest.raises(LoadError, match="inference_mode"):
        load_into(module, target, home=home)
    with torch.inference_mode():
        load_into(module, target, home=home)
        assert module.weight.eq(1).all()


def test_an_expanded_buffer_is_refused_before_anything_is_read(tmp_path: Path, home: Path) -> None:
    target = of(tmp_path, home, {"a": torch.ones(2), "b": torch.ones(4, 3)})
    module = nn.Module()
    module.register_buffer("a", torch.zeros(2))
    module.register_buffer("b", torch.zeros(3).expand(4, 3))
    with pytest.raises(LoadError, match="b, which"):
        load_into(module, target, home=home)
    assert not module.get_buffer("a").any()
