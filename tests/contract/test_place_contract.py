"""Every place against the one suite."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diachunk.manifest import Component
from diachunk.places import Place
from diachunk.places.descript import Descript
from diachunk.places.dia import Dia
from diachunk.places.directory import Directory
from diachunk.places.hub import Hub
from diachunk.testing.place_contract import PlaceContract, file_entry

UPSTREAM = {"kind": "hub", "repository": "org/name", "commit": "0123456789" * 4}


class TestHub(PlaceContract):
    def make_place(self, root: Path) -> Place:
        return Hub(root)

    def fitting(self) -> Component:
        files = (
            file_entry("config.json", lfs=False),
            file_entry("deep/er/weights.bin"),
            file_entry("model.safetensors"),
        )
        return Component("model", files, UPSTREAM)

    def unfitting(self) -> Sequence[Component]:
        file = file_entry("model.safetensors")
        return [
            Component("plain", (file,), {"kind": "url", "url": "https://example.org/x"}),
            Component("", (file,)),
        ]


class TestDescript(PlaceContract):
    def make_place(self, root: Path) -> Place:
        return Descript(root)

    def fitting(self) -> Component:
        return Component("vocoder", (file_entry("checkpoint.pth"), file_entry("config.json", lfs=False)))

    def unfitting(self) -> Sequence[Component]:
        two = Component("two", (file_entry("a.pth"), file_entry("b.pth")))
        return [*super().unfitting(), two, Component("none", ())]


class TestDia(PlaceContract):
    takes_anything = True

    def make_place(self, root: Path) -> Place:
        return Dia(root)

    def fitting(self) -> Component:
        return Component(
            "vocoder", (file_entry("checkpoint.pth"), file_entry("deep/er/config.json", lfs=False))
        )


class TestDirectory(PlaceContract):
    takes_anything = True

    def make_place(self, root: Path) -> Place:
        return Directory(root)

    def fitting(self) -> Component:
        return Component("model", (file_entry("a.bin"), file_entry("deep/b.bin"), file_entry("deep/c.json")))


class TestDirectoryOfAnUnnamedComponent(TestDirectory):
    def fitting(self) -> Component:
        return Component("", (file_entry("a.bin"), file_entry("deep/b.bin")))


GUIDE = Path(__file__).parents[2] / "docs" / "places.md"


def example_of_the_guide() -> Callable[[Path], Place]:
    names: dict[str, Any] = {"__name__": "guide"}
    block = next(
        each
        for each in re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
        if "class TorchHub" in each
    )
    exec(compile(block, str(GUIDE), "exec"), names)
    made: Callable[[Path], Place] = names["TorchHub"]
    return made


class TestTheExampleOfTheGuide(PlaceContract):
    def make_place(self, root: Path) -> Place:
        return example_of_the_guide()(root)

    def fitting(self) -> Component:
        return Component("vocoder", (file_entry("checkpoint.pth"), file_entry("config.json")))
