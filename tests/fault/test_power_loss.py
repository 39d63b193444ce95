"""The power goes, at any moment: what is there is right, and what was promised is there. SIGKILL cannot show that.

Each operation is run once, and all that it changes is journalled (`fixtures.power_loss`). Then the disk is laid
out as it may look after any event of that journal (`fixtures.power_cut`), and the library looks at it.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.limits import KiB
from fixtures.crash_operations import BY_NAME
from fixtures.crash_world import Lab, make_lab
from fixtures.power_cut import (
    BYTES,
    EVERYTHING,
    NAMES,
    NAMES_AND_SIZES,
    NOTHING,
    at_risk,
    muted,
    some,
)
from fixtures.power_journal import Changed, Flushed
from fixtures.power_recordings import Recording, record, take_over
from fixtures.ram import in_memory

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="knows the calls of Linux alone")

SOURCE = Path(diachunk.__file__).parent
SAME = (NOTHING, NAMES_AND_SIZES, NAMES, BYTES)
TAKEN_OVER = (
    *("fetch", "fetch-to", "publish", "publish-copy", "move", "repair"),
    *("draft", "publish-recipe", "place", "place-symlinks", "place-copies", "place-undo", "place-undo-all"),
    *("preload", "adopt"),
)
FLUSHES = frozenset({"flush_data", "flush_dir", "make_dirs", "make_root", "fsync", "fdatasync"})
RUN_EACH = 8
"""Every how many'th of the disks that look different from all before is also run on."""


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    with in_memory() as directory:
        yield directory


@pytest.fixture(scope="module")
def lab(room: Path) -> Lab:
    return make_lab(room / "lab", chunk_bytes=8 * KiB, chunks=4)


@pytest.fixture(scope="module", autouse=True)
def own_environment(lab: Lab) -> Iterator[None]:
    """One for all tests here, in place of one for each: the recordings are shared."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [*os.environ]:
            if name.startswith("DIACHUNK_"):
                patch.delenv(name)
        patch.setenv("HOME", str(lab.directory))
        patch.setenv("XDG_CONFIG_HOME", str(lab.directory / "config"))
        yield


@pytest.fixture(scope="module")
def recordings(room: Path, lab: Lab) -> dict[str, Recording]:
    return {name: record(each, lab, room) for name, each in BY_NAME.items()}


@pytest.fixture(scope="module")
def takeovers(recordings: dict[str, Recording]) -> dict[str, list[Recording]]:
    """For each flush of some operations: killed right before it, and run again."""
    return {
        name: [
            again
            for count, event in enumerate(recordings[name].events)
            if isinstance(event, Flushed) and (again := take_over(recordings[name], count))
        ]
        for name in TAKEN_OVER
    }


def picture(root: Path) -> dict[str, object]:
    """Everything that there is to see below a directory, but for the modes of directories."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        status = path.lstat()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = None
        else:
            found[name] = status.st_ino, status.st_mode, status.st_mtime_ns, path.read_bytes()
    return found


@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_that_an_operation_does_escapes_the_journal(lab: Lab, name: str) -> None:
    with in_memory() as room:
        each = record(BY_NAME[name], lab, room)
        before = picture(each.world.root)
        each.cut(each.events, EVERYTHING, set())
        assert picture(each.world.root) == before


def moments(each: Recording) -> Iterator[int]:
    """After how many events the power goes: after each but for those that only set a size, a time or a mode;
    where two operations follow one another that are here by themselves as well, at the end alone.
    """
    for count, event in enumerate(each.events):
        if not isinstance(event, Changed) and each.operation.name != "fetch-both-ways":
            yield count + 1
    yield len(each.events)


@pytest.mark.parametrize("name", BY_NAME)
def test_whenever_the_power_goes_what_is_there_is_right(recordings: dict[str, Recording], name: str) -> None:
    each = recordings[name]
    seen: set[bytes] = set()
    for count in moments(each):
        returned = count == len(each.events)
        if returned:
            seen = set()  # from here on promises count: what was allowed before may not be now
        events = each.events[:count]
        for keeping in (*SAME, *at_risk(events), some(count)):
            if each.cut(events, keeping, seen):
                moment = f"{name}, after {count} of {len(each.events)}: the disk kept {keeping.label}"
                assert each.wrong(returned=returned) == [], moment
                if returned or len(seen) % RUN_EACH == 0:
                    assert each.run_on() == [], moment


@pytest.mark.parametrize("name", TAKEN_OVER)
def test_a_run_that_takes_over_from_a_killed_one_promises_as_much(
    takeovers: dict[str, list[Recording]], name: str
) -> None:
    """The killed one made names and did not come to flush them; the next one must not take them for durable."""
    for each in takeovers[name]:
        for keeping in SAME:
            each.cut(each.events, keeping, set())
            assert each.wrong(returned=True) == [], f"{each.label}: then the disk kept {keeping.label}"


def is_missed(each: Recording, site: str, *, end_only: bool) -> bool:
    """Whether something goes wrong, that does not otherwise, when this place does not flush: at the end, or at
    any moment from its first flush on.
    """
    journal = muted(each.events, site)
    end = len(journal)
    first = next(
        n for n, event in enumerate(each.events) if isinstance(event, Flushed) and event.site == site
    )
    seen: set[bytes] = set()
    for count in [end] if end_only else sorted(set(moments(each)), reverse=True):
        if count <= first:
            return False
        for keeping in (*SAME, *at_risk(journal[:count])):
            if each.look(journal[:count], keeping) == each.look(each.events[:count], keeping):
                continue
            if each.cut(journal[:count], keeping, seen) and each.wrong(returned=count == end):
                each.cut(each.events[:count], keeping, set())
                if not each.wrong(returned=count == end):
                    return True
    return False


def test_without_any_one_of_the_flushes_something_goes_wrong(
    recordings: dict[str, Recording], takeovers: dict[str, list[Recording]]
) -> None:
    """The places are those that were seen to flush: a needless one shows here, a removed one in the tests above."""
    firsts = [*recordings.values()]
    both = [*firsts, *(each for some_of_them in takeovers.values() for each in some_of_them)]
    needless = {
        site
        for site in set().union(*(each.sites for each in both))
        if not any(is_missed(each, site, end_only=True) for each in both if site in each.sites)
        and not any(is_missed(each, site, end_only=False) for each in firsts if site in each.sites)
    }
    assert needless == set()


def flushing_calls() -> set[tuple[str, int]]:
    """(file, line) of every call in the source that flushes, or lets flush."""
    return {
        (str(path.relative_to(SOURCE)), node.lineno)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if flushes(node, node.func)
    }


def flushes(call: ast.Call, name: ast.Attribute) -> bool:
    if name.attr == "flush":
        return ast.unparse(name.value).endswith("tree")
    durable = [ast.unparse(each.value) for each in call.keywords if each.arg == "durable"]
    return name.attr in FLUSHES or durable not in ([], ["False"])


def test_every_place_in_the_source_that_flushes_was_seen_to(
    recordings: dict[str, Recording], takeovers: dict[str, list[Recording]]
) -> None:
    both = [*recordings.values(), *(each for some_of_them in takeovers.values() for each in some_of_them)]
    reached = {
        line for each in both for event in each.events if isinstance(event, Flushed) for line in event.lines
    }
    assert flushing_calls() - reached == set()
