"""The suite for places accepts a good place and refuses each kind of bad one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from diachunk.errors import UsageError
from diachunk.manifest import Component
from diachunk.places import Place
from diachunk.places.base import Entry, Layout, Spot, Wanted, by_size, plain_leftovers
from diachunk.places.directory import Directory
from diachunk.testing.place_contract import PlaceContract, file_entry
from fixtures.suites import run_suite


class Simple:
    """A good place, all files in one directory: the base of the bad ones."""

    kind = "simple"

    def __init__(self, root: Path) -> None:
        self.root = root

    def candidates(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Path]]:
        yield from by_size(wanted, [each.path for each in self.entries()])

    def entries(self) -> Iterator[Entry]:
        yield from Directory(self.root).entries()

    def leftovers(self) -> Iterator[tuple[Path, int]]:
        yield from plain_leftovers(self.root)

    def accepts(self, component: Component) -> bool:
        return any(file.path.endswith(".pth") for file in component.files)

    def layout(self, component: Component) -> Layout:
        if not self.accepts(component):
            raise UsageError("no .pth file")
        return Layout(component.name, tuple(Spot(file.path, file) for file in component.files))


class AnswersOnlyOne(Simple):
    def candidates(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Path]]:
        last = {each.size: index for index, each in enumerate(wanted)}
        for each in self.entries():
            if each.size in last and each.path.is_file():
                yield last[each.size], each.path


class Nameless(Simple):
    kind = ""


class Wanders(Simple):
    count = itertools.count()

    def layout(self, component: Component) -> Layout:
        layout, number = super().layout(component), next(self.count)
        return replace(layout, spots=tuple(replace(each, where=f"{number}.pth") for each in layout.spots[:1]))


class HidesItself(Simple):
    def layout(self, component: Component) -> Layout:
        layout = super().layout(component)
        return replace(layout, hidden_by=(layout.spots[0].where,))


class StagesElsewhere(Simple):
    def layout(self, component: Component) -> Layout:
        return replace(super().layout(component), staging="../elsewhere")


class ReadElsewhere(Simple):
    def layout(self, component: Component) -> Layout:
        layout = super().layout(component)
        return replace(layout, spots=tuple(replace(each, readers="/etc") for each in layout.spots))


class Suite(PlaceContract):
    def __init__(self, make: Callable[[Path], Place]) -> None:
        self.make = make

    def make_place(self, root: Path) -> Place:
        return self.make(root)

    def fitting(self) -> Component:
        return Component("vocoder", (file_entry("checkpoint.pth"), file_entry("config.json")))


def test_the_suite_accepts_a_good_place(tmp_path: Path) -> None:
    run_suite(Suite(Simple), tmp_path)


@pytest.mark.parametrize(
    "make",
    [AnswersOnlyOne, Nameless, Wanders, HidesItself, StagesElsewhere, ReadElsewhere],
)
def test_the_suite_refuses_a_bad_place(make: Callable[[Path], Place], tmp_path: Path) -> None:
    with pytest.raises((AssertionError, OSError)):
        run_suite(Suite(make), tmp_path)
