"""What a foreign cache is to diachunk: where its files lie (read: adopt) and where they belong (write: place).

A place only *says* things: which file may be the one wanted, what a file's own name claims, where each file of a
component belongs. It hashes nothing, writes nothing and trusts nothing: those who ask it do (places/write.py).
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from diachunk.manifest import Component, FileEntry

ENTRIES_MAX = 1_000_000
"""Names that a walk through a cache looks at before it gives up: a bound for what others can put there."""

TEMPORARY_SUFFIX = ".diachunk-tmp"
"""Ends the names under which placing prepares files. One that is left behind was in the hands of a killed run."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that somebody looks for. Digests are lower-case hex, or "" if nobody knows them.

    Attributes:
        size: bytes.
        name: its file name, for caches that know no digests.
    """

    size: int
    sha256: str = ""
    git: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One complete file found in a foreign cache.

    Attributes:
        algorithm: "sha256" or "git", whose digest its own name is; "" where names say nothing.
        expected: that digest in lower-case hex, or "".
        label: for people: "nari-labs/Dia-1.6B-0626/config.json".
        repository, commit, file: of a hub: where it is from, and the path there.
        shared: reached through a link that leads out of this cache's own directory for it. Others may read what
            it leads to: it is replaced, never written through.
    """

    path: Path
    size: int
    algorithm: str
    expected: str
    label: str
    repository: str = ""
    commit: str = ""
    file: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the bytes of one file belong.

    Attributes:
        where: relative POSIX path below the place's root.
        algorithm: "sha256" or "git" if the name is that digest of the bytes: it must have been computed here.
        readers: a directory below the root, links from inside which make others need this file; or "".
    """

    where: str
    file: FileEntry
    algorithm: str = ""
    readers: str = ""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A relative link below the root, to a spot; `file` is what it leads to, `algorithm` as of that."""

    where: str
    target: str
    file: FileEntry
    algorithm: str = ""


class Manner(enum.Enum):
    """What becomes of a text that is there already, and when ours goes."""

    REF = "replaces what is there, which is remembered and restored"
    NEW = "what is there stays"
    MARK = "made in a directory that is empty, and goes with the last file beside it"


@dataclass(frozen=True, slots=True)
class Text:
    """A small file below the root.

    Attributes:
        needs: of a REF: with "{}" replaced by the text that was there, this must exist for it to be restored.
    """

    where: str
    data: bytes
    manner: Manner
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """All that makes one component present in a place, in the order in which it is written.

    Attributes:
        hidden_by: paths that would keep programs from seeing it: moved aside.
        staging: where files are made ready, if programs take whatever lies in the directories themselves for
            theirs; "" for beside where each belongs.
        shown: relative path that programs are given: a directory or a file.
        use: for people: what makes programs use it.
    """

    component: str
    spots: tuple[Spot, ...]
    pointers: tuple[Pointer, ...] = ()
    texts: tuple[Text, ...] = ()
    hidden_by: tuple[str, ...] = ()
    staging: str = ""
    shown: str = "."
    use: str = ""


class Place(Protocol):
    """One foreign cache. Methods never raise for what lies there: a cache that cannot be read is empty.

    Attributes:
        kind: what manifests and `--into` call it: "hub", "descript", "dia"; "directory" for any directory.
        root: its directory, absolute; may not exist. Links in or above it are the user's set-up.
    """

    kind: str
    root: Path

    def candidates(self, wanted: Sequence[Wanted]) -> Iterator[tuple[int, Path]]:
        """Files that may be what is wanted, as (index in `wanted`, file). Claims: sizes are right, bytes unknown."""
        ...

    def entries(self) -> Iterator[Entry]:
        """Every complete file, once."""
        ...

    def leftovers(self) -> Iterator[tuple[Path, int]]:
        """What killed programs left behind, with its bytes: unfinished downloads, links that lead nowhere (0)."""
        ...

    def accepts(self, component: Component) -> bool:
        """Whether this component is of the kind that this place is for."""
        ...

    def layout(self, component: Component) -> Layout:
        """Where each file of a component belongs.

        Raises:
            UsageError: this component has no place here; says why.
        """
        ...


# --- what implementations share ------------------------------------------------------------------------------


def home_of(environment: Mapping[str, str]) -> str:
    """The user's home directory as `os.path.expanduser("~")` finds it; "~" if there is none."""
    return environment.get("HOME") or os.path.expanduser("~")


def regular_size(path: Path) -> int | None:
    """Bytes of a regular file, links followed; None for anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def names_in(directory: Path) -> list[str]:
    """Names in a directory, sorted; none if it cannot be read."""
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def walk_files(root: Path) -> Iterator[Path]:
    """Files and links below a directory, sorted, no linked directory entered; at most ENTRIES_MAX names."""
    looked_at = 0
    for directory, below, names in os.walk(root):
        below.sort()
        here = Path(directory)
        linked = [name for name in below if os.path.islink(here / name)]
        for name in sorted((*names, *linked)):
            looked_at += 1
            if looked_at > ENTRIES_MAX:
                return
            yield here / name


def by_size(wanted: Sequence[Wanted], files: Sequence[Path]) -> Iterator[tuple[int, Path]]:
    """Candidates where names say nothing: of the right size, and of the same suffix where one is wanted; small
    files, of which many are equally long, by the same name.
    """
    sizes: dict[int, list[int]] = {}
    for index, each in enumerate(wanted):
        sizes.setdefault(each.size, []).append(index)
    for path in files:
        size = regular_size(path)
        for index in sizes.get(-1 if size is None else size, ()):
            name = wanted[index].name
            if (
                not name
                or name == path.name
                or (wanted[index].size >= _LARGE_BYTES and Path(name).suffix == path.suffix)
            ):
                yield index, path


_LARGE_BYTES = 64 * 1024


def leads_outside(path: Path, directory: Path) -> bool:
    """Whether a path's real file lies outside of a directory."""
    try:
        return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))
    except (OSError, ValueError):
        return True


def plain_leftovers(root: Path) -> Iterator[tuple[Path, int]]:
    """Temporary files of placing and of fetching, and links that lead nowhere."""
    for path in walk_files(root):
        if os.path.islink(path):
            if not os.path.exists(path):
                yield path, 0
        elif path.name.endswith((TEMPORARY_SUFFIX, ".diachunk-partial")):
            yield path, regular_size(path) or 0
