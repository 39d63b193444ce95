"""Places of other packages: named by users, by nobody else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest

from diachunk.api.foreign.caches import verify_caches
from diachunk.api.placing import place_manifest, undo_manifest
from diachunk.errors import UsageError
from diachunk.manifest import Component
from diachunk.places import Place, cache_of, kinds, known
from diachunk.places.base import Entry, Layout, Spot, Wanted
from diachunk.places.directory import Directory
from fixtures.placing import CONFIG, WEIGHTS, World, component, manifest_of

FILES = {"config.json": CONFIG, "pytorch_model.bin": WEIGHTS}


class Flat:
    """All files of a component in one directory."""

    def __init__(self, root: Path, kind: str) -> None:
        self.kind = kind
        self.root = root

    def candidates(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Path]]:
        yield from ()

    def entries(self) -> Iterator[Entry]:
        yield from Directory(self.root).entries()

    def leftovers(self) -> Iterator[tuple[Path, int]]:
        yield from ()

    def accepts(self, component: Component) -> bool:
        return True

    def layout(self, component: Component) -> Layout:
        return Layout(component.name, tuple(Spot(file.path, file) for file in component.files), shown=".")


class Installed:
    """Stands for the entry points of the machine."""

    def __init__(self, module: ModuleType) -> None:
        self.entries: list[EntryPoint] = []
        self._module = module

    def add(self, name: str, factory: Callable[[Mapping[str, str]], Place]) -> None:
        made = f"factory{len(self.entries)}"
        setattr(self._module, made, factory)
        self.entries.append(EntryPoint(name, f"{self._module.__name__}:{made}", known.GROUP))

    def look_up(self, group: str, name: str = "") -> EntryPoints:
        found = EntryPoints(each for each in self.entries if each.group == group)
        return found.select(name=name) if name else found


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    module = ModuleType("some_place_plugin")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = Installed(module)
    monkeypatch.setattr(known, "entry_points", found.look_up)
    return found


def test_a_plug_ins_place_is_used_by_its_kind(world: World, installed: Installed) -> None:
    root = world.home / "flat"
    installed.add("flat", lambda environment: Flat(root, "flat"))
    manifest = world.keep(manifest_of(component("model", FILES)), FILES)
    placed = place_manifest(world.context, manifest, into=["flat"])
    assert [each.kind for each in placed.places] == ["flat"]
    assert (root / "pytorch_model.bin").read_bytes() == WEIGHTS
    report = verify_caches(["flat"], home=world.context.store.root)
    assert report.ok
    assert {each.path.parent for each in report.files} == {root}
    undo_manifest(world.context, manifest, into=["flat"])
    assert not (root / "pytorch_model.bin").exists()


def test_a_manifest_does_not_name_it(world: World, installed: Installed) -> None:
    installed.add("flat", lambda environment: Flat(world.home / "flat", "flat"))
    hinted = manifest_of(component("model", FILES), places=[{"kind": "flat", "component": "model"}])
    with pytest.raises(UsageError, match="does not say where") as refused:
        place_manifest(world.context, world.keep(hinted, FILES))
    assert "flat" in str(refused.value.hint)
    assert not (world.home / "flat").exists()


def test_built_in_kinds_are_nobody_elses(installed: Installed, tmp_path: Path) -> None:
    installed.add("hub", lambda environment: Flat(tmp_path, "hub"))
    assert cache_of("hub", {"HOME": str(tmp_path)}).root != tmp_path
    assert kinds() == tuple(known.KINDS)


@pytest.mark.parametrize("way", ["raises", "is for another kind", "is missing"])
def test_one_that_does_not_work_is_named(installed: Installed, tmp_path: Path, way: str) -> None:
    def broken(environment: Mapping[str, str]) -> Place:
        raise KeyError("HOME")

    if way == "is missing":
        installed.entries.append(EntryPoint("flat", "no_such_package:of", known.GROUP))
    else:
        installed.add("flat", broken if way == "raises" else lambda environment: Flat(tmp_path, "other"))
    with pytest.raises(UsageError, match="the plug-in for places of kind flat"):
        cache_of("flat", {})
    with pytest.raises(UsageError, match="the plug-in for places of kind flat"):
        verify_caches(["flat"], home=tmp_path)


def test_a_directory_stays_one(installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    installed.add("flat", lambda environment: Flat(tmp_path / "elsewhere", "flat"))
    assert cache_of("./flat", {}).root == tmp_path / "flat"
    (tmp_path / "models").mkdir()
    assert cache_of("models", {}).root == tmp_path / "models"
    with pytest.raises(UsageError, match="no kind of place") as refused:
        cache_of("flatt", {})
    assert "did you mean flat" in str(refused.value.hint)
