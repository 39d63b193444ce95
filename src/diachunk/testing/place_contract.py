"""The suite that every place must pass: a cache of another program that is read (adopt) and written (place).

Inherit in a pytest file, say how to make one, and the tests run:

    class TestMyCache(PlaceContract):
        def make_place(self, root: Path) -> Place:
            return MyCache(root)

        def fitting(self) -> Component: ...

What is promised stands on `diachunk.places.base.Place`.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

from diachunk.digest import digest_of, git_hasher
from diachunk.errors import UsageError
from diachunk.manifest import ChunkList, Component, FileEntry
from diachunk.places.base import TEMPORARY_SUFFIX, Layout, Place, Wanted

_HUGE_BYTES = 1 << 40


def contents(path: str) -> bytes:
    """The bytes that the suite gives to a file of this path."""
    return (blake2b(path.encode()).digest() * 2048)[: 70_000 + len(path)]


def file_entry(path: str, *, lfs: bool = True) -> FileEntry:
    """A file with those bytes, as a manifest describes it."""
    data = contents(path)
    running = git_hasher(len(data))
    running.update(data)
    return FileEntry(
        path,
        len(data),
        digest_of(data),
        ChunkList.of([(len(data), digest_of(data))]),
        hashlib.sha256(data).hexdigest(),
        git="" if lfs else running.hexdigest(),
    )


def wanted_of(file: FileEntry, *, size: int | None = None) -> Wanted:
    """What somebody who looks for a file knows of it."""
    return Wanted(file.size if size is None else size, file.sha256, file.git, posixpath.basename(file.path))


class PlaceContract:
    """Inherit this, and override the first two hooks.

    Attributes:
        takes_anything: whether every component with files has a place here.
    """

    takes_anything: ClassVar[bool] = False

    def make_place(self, root: Path) -> Place:
        """The place whose directory is `root`."""
        raise NotImplementedError

    def fitting(self) -> Component:
        """A component that belongs here; its files are made by `file_entry`."""
        raise NotImplementedError

    def unfitting(self) -> Sequence[Component]:
        """Components that do not."""
        return () if self.takes_anything else [Component("nothing", (file_entry("notes.txt"),))]

    # --- helpers -------------------------------------------------------------------------------------------

    def _filled(self, root: Path) -> tuple[Place, Layout]:
        """The place as its own layout says, written by hand."""
        place = self.make_place(root)
        layout = place.layout(self.fitting())
        for spot in layout.spots:
            path = root / spot.where
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents(spot.file.path))
        for pointer in layout.pointers:
            path = root / pointer.where
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(pointer.target)
        for text in layout.texts:
            path = root / text.where
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.data)
        return place, layout

    def _read(self, place: Place) -> dict[str, Any]:
        wanted = [wanted_of(file) for file in self.fitting().files]
        return {
            "candidates": sorted(place.candidates(wanted)),
            "entries": sorted(place.entries(), key=lambda each: str(each.path)),
            "leftovers": sorted(place.leftovers()),
        }

    def _names(self, root: Path) -> list[tuple[str, int, int]]:
        return sorted(
            (str(each.relative_to(root)), each.lstat().st_mode, each.lstat().st_mtime_ns)
            for each in _all_below(root)
        )

    # --- where things belong -------------------------------------------------------------------------------

    def test_every_path_of_a_layout_is_its_own_and_below_the_root(self, tmp_path: Path) -> None:
        layout = self.make_place(tmp_path).layout(self.fitting())
        paths = _paths(layout)
        assert len(set(paths)) == len(paths)
        for path in (*paths, *layout.hidden_by):
            assert path == posixpath.normpath(path), path
            assert not path.startswith(("/", "..")), path
            assert path != ".", path
        assert not any(other.startswith(f"{path}/") for path in paths for other in paths), "a file in a file"
        assert not set(layout.hidden_by) & set(paths), "moves its own files aside"
        readers = [spot.readers for spot in layout.spots]
        for directory in filter(None, (layout.shown, layout.staging, *readers)):
            assert directory == posixpath.normpath(directory), directory
            assert not directory.startswith(("/", "..")), directory

    def test_it_says_the_same_each_time(self, tmp_path: Path) -> None:
        place = self.make_place(tmp_path)
        assert place.kind
        assert place.kind.isprintable()
        # What is placed is looked for there again, by the next run, to be undone.
        first, *others = (one.layout(self.fitting()) for one in (place, place, self.make_place(tmp_path)))
        assert all(_paths(other) == _paths(first) for other in others)

    def test_every_file_that_has_a_place_is_one_of_the_components(self, tmp_path: Path) -> None:
        component = self.fitting()
        layout = self.make_place(tmp_path).layout(component)
        assert layout.component == component.name
        assert layout.spots, "no file has a place: this suite would prove nothing"
        assert {id(spot.file) for spot in layout.spots} <= {id(file) for file in component.files}

    def test_a_name_that_is_a_digest_is_that_of_the_bytes(self, tmp_path: Path) -> None:
        for spot in self.make_place(tmp_path).layout(self.fitting()).spots:
            assert spot.algorithm in ("", "sha256", "git")
            if spot.algorithm:
                assert posixpath.basename(spot.where) == getattr(spot.file, spot.algorithm)

    def test_pointers_lead_to_spots_with_the_same_bytes(self, tmp_path: Path) -> None:
        layout = self.make_place(tmp_path).layout(self.fitting())
        spots = {spot.where: spot for spot in layout.spots}
        for pointer in layout.pointers:
            assert not pointer.target.startswith("/")
            leads_to = posixpath.normpath(posixpath.join(posixpath.dirname(pointer.where), pointer.target))
            assert spots[leads_to].file.blake3 == pointer.file.blake3

    def test_programs_are_shown_what_is_there_in_the_end(self, tmp_path: Path) -> None:
        _, layout = self._filled(tmp_path)
        assert (tmp_path / layout.shown).exists()

    def test_a_component_that_is_accepted_has_a_layout_and_any_other_is_refused(self, tmp_path: Path) -> None:
        place = self.make_place(tmp_path)
        assert place.accepts(self.fitting())
        for component in self.unfitting():
            assert not place.accepts(component)
            refused = False
            try:
                place.layout(component)
            except UsageError:
                refused = True
            assert refused, component.name

    def test_asking_where_things_belong_touches_no_disk(self, tmp_path: Path) -> None:
        root = tmp_path / "not" / "there"
        place = self.make_place(root)
        place.accepts(self.fitting())
        place.layout(self.fitting())
        assert place.root == root
        assert list(tmp_path.iterdir()) == []

    # --- reading -------------------------------------------------------------------------------------------

    def test_a_cache_that_is_not_there_is_empty(self, tmp_path: Path) -> None:
        found = self._read(self.make_place(tmp_path / "not" / "there"))
        assert found == {"candidates": [], "entries": [], "leftovers": []}
        assert list(tmp_path.iterdir()) == []

    def test_what_was_placed_is_found_by_those_who_look_for_it(self, tmp_path: Path) -> None:
        place, layout = self._filled(tmp_path)
        # Two may look for the same.
        files = [spot.file for spot in layout.spots] * 2
        found = list(place.candidates([wanted_of(file) for file in files]))
        assert {index for index, _ in found} == set(range(len(files)))
        for index, file in enumerate(files):
            assert any(path.read_bytes() == contents(file.path) for number, path in found if number == index)

    def test_a_candidate_is_a_regular_file_of_the_size_wanted(self, tmp_path: Path) -> None:
        place, layout = self._filled(tmp_path)
        wanted = [wanted_of(spot.file, size=spot.file.size + 1) for spot in layout.spots]
        assert list(place.candidates(wanted)) == []
        assert list(place.candidates([])) == []
        for spot in layout.spots:
            path = tmp_path / spot.where
            path.unlink()
            path.mkdir()
        assert list(place.candidates([wanted_of(spot.file) for spot in layout.spots])) == []

    def test_every_complete_file_is_listed_once_with_what_its_name_claims(self, tmp_path: Path) -> None:
        place, layout = self._filled(tmp_path)
        entries = list(place.entries())
        found = {each.path: each for each in entries}
        assert len(found) == len(entries)
        for spot in layout.spots:
            entry = found[tmp_path / spot.where]
            assert entry.size == spot.file.size
            assert entry.algorithm == spot.algorithm
            assert entry.expected == (getattr(spot.file, spot.algorithm) if spot.algorithm else "")
            assert not entry.shared
            assert entry.label.isprintable()

    def test_a_file_behind_a_link_that_leads_elsewhere_is_marked(self, tmp_path: Path) -> None:
        place, layout = self._filled(tmp_path / "cache")
        path = tmp_path / "cache" / layout.spots[0].where
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert [each.shared for each in place.entries() if each.path == path] == [True]

    def test_reading_reads_no_file(self, tmp_path: Path) -> None:
        place, layout = self._filled(tmp_path)
        wanted = []
        for spot in layout.spots:
            os.truncate(tmp_path / spot.where, _HUGE_BYTES)
            wanted.append(wanted_of(spot.file, size=_HUGE_BYTES))
        assert {index for index, _ in place.candidates(wanted)} == set(range(len(wanted)))
        assert _HUGE_BYTES in {each.size for each in place.entries()}

    def test_reading_changes_nothing(self, tmp_path: Path) -> None:
        place, _ = self._filled(tmp_path)
        before = self._names(tmp_path)
        self._read(place)
        assert self._names(tmp_path) == before

    def test_what_killed_runs_leave_is_a_leftover_and_no_file(self, tmp_path: Path) -> None:
        place, layout = self._filled(tmp_path)
        assert list(place.leftovers()) == []
        beside = (tmp_path / layout.spots[0].where).parent
        unfinished, nowhere = beside / f".0-1{TEMPORARY_SUFFIX}", beside / "nowhere"
        unfinished.write_bytes(b"12345")
        nowhere.symlink_to("not-there")
        assert sorted(place.leftovers()) == sorted([(unfinished, 5), (nowhere, 0)])
        assert not {unfinished, nowhere} & {each.path for each in place.entries()}

    def test_strange_things_are_passed_over(self, tmp_path: Path) -> None:
        place, layout = self._filled(tmp_path)
        before = list(place.entries())
        for directory in {tmp_path, *((tmp_path / path).parent for path in _paths(layout))}:
            os.mkfifo(directory / "a-fifo.pth")
            (directory / "loop.pth").symlink_to("loop.pth")
            (directory / os.fsdecode(b"bad-\xff-name")).mkdir()
            (directory / "round").symlink_to("..")
        found = self._read(place)
        assert sorted(map(str, found["entries"])) == sorted(map(str, before))

    def test_a_file_where_directories_belong_is_an_empty_cache(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_bytes(b"")
        assert self._read(self.make_place(tmp_path / "cache"))["entries"] == []


def _paths(layout: Layout) -> list[str]:
    return [
        *(spot.where for spot in layout.spots),
        *(pointer.where for pointer in layout.pointers),
        *(text.where for text in layout.texts),
    ]


def _all_below(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        yield from (Path(directory, name) for name in (*names, *files))
