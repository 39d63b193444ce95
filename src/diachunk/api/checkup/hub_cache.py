"""The Hub client's cache as a whole: where it is, what dangles in it, and the switches of the client."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from diachunk.api.checkup.base import Area, Budget, Finding, Level, Patient, count, quoted
from diachunk.places import cache_of
from diachunk.places.base import names_in
from diachunk.places.hub_names import is_commit, repository_of
from diachunk.store.files import read_hint

_READ_S = 2.0
_SHOWN = 3
_PLACES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")
_SWITCHES: Mapping[str, str] = {
    "HF_HUB_ENABLE_HF_TRANSFER": "is ignored by today's clients, and made older ones unable to resume",
    "HF_HUB_DISABLE_XET": "keeps the clients from Xet; diachunk does not use it anyway",
    "HF_XET_HIGH_PERFORMANCE": "lets the clients take all of the line; diachunk does not use Xet",
}
_FALSE = ("", "0", "no", "off", "false")


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.CACHES, what, cure)


def root_of(patient: Patient) -> Path:
    """The cache's directory; may not exist."""
    return cache_of("hub", patient.environment).root


def repositories(patient: Patient) -> list[Path]:
    """The directories of its repositories."""
    root = root_of(patient)
    return [root / name for name in names_in(root) if repository_of(name) and (root / name).is_dir()]


def is_on(patient: Patient, variable: str) -> bool:
    """Whether a switch is on, as the Hub's clients read it."""
    return patient.environment.get(variable, "").lower() not in _FALSE


def cache_directory(patient: Patient) -> Iterator[Finding]:
    """Where the cache is, and whether it can be written."""
    root = root_of(patient)
    by = next((each for each in _PLACES if each in patient.environment), "the default")
    if by != "the default" and (
        not patient.environment[by] or not os.path.isabs(os.path.expanduser(patient.environment[by]))
    ):
        what = f"{by} is {patient.environment[by]!r}: programs look for the Hub's cache in {root}, by where they start"
        yield _found(Level.WARNING, what, f"unset {by}")
        return
    there = next((each for each in (root, *root.parents) if each.exists()), Path("/"))
    if not there.is_dir():
        what = f"the Hub's cache cannot be {root}: {there} is not a directory"
        yield _found(
            Level.FAULT, what, f"unset {by}" if by in _PLACES else f"mv {quoted(there)} {quoted(there)}.old"
        )
    elif not os.access(there, os.W_OK | os.X_OK):
        what = f"{there} cannot be written to: programs cannot keep what they fetch from the Hub"
        yield _found(Level.WARNING, what, "export HF_HOME=/var/tmp/huggingface  # or any directory of yours")
    else:
        yield _found(Level.OK, f"the Hub's cache: {root}" + ("" if there == root else " (not there yet)"))


def snapshots(patient: Patient) -> Iterator[Finding]:
    """Links that lead nowhere, and refs to commits of which nothing is here."""
    budget, clean = Budget(_READ_S), True
    offline = is_on(patient, "HF_HUB_OFFLINE") or is_on(patient, "TRANSFORMERS_OFFLINE")
    for repository in repositories(patient):
        name = repository_of(repository.name)
        dangling = [path for path in _links(repository / "snapshots") if not path.exists()]
        if dangling:
            clean = False
            file = dangling[0].relative_to(repository / "snapshots").as_posix().partition("/")[2]
            more = f" and {count(len(dangling) - 1, 'other')}" if len(dangling) > 1 else ""
            what = f"{name}: {file}{more} in the Hub's cache leads to a file that is not there"
            yield _found(Level.FAULT, what, _remove_or_fetch(dangling, name, offline=offline))
        for ref, commit in _refs(repository):
            if not is_commit(commit) or not (repository / "snapshots" / commit).is_dir():
                clean = False
                what = (
                    f"{name}: {ref} is at {commit[:12] or 'nothing'}…, of which the Hub's cache has no file"
                )
                yield _found(Level.WARNING, what, f"rm {quoted(repository / 'refs' / ref)}")
        if budget.over:
            yield _found(
                Level.NOTE,
                "not all links of the Hub's cache were looked at, for time",
                "diachunk verify --cache hub",
            )
            return
    if clean and repositories(patient):
        yield _found(Level.OK, "every link in the Hub's cache leads to a file")


def _links(root: Path) -> Iterator[Path]:
    for directory, below, files in os.walk(root):
        yield from (path for name in (*below, *files) if (path := Path(directory, name)).is_symlink())


def _refs(repository: Path) -> Iterator[tuple[str, str]]:
    root = repository / "refs"
    for directory, _, files in os.walk(root):
        for file in files:
            path = Path(directory, file)
            data = read_hint(path, 256) or b""
            yield path.relative_to(root).as_posix(), data.decode("ascii", "replace").strip()


def _remove_or_fetch(dangling: list[Path], name: str, *, offline: bool) -> str:
    """Links that lead nowhere are as good as none: the client fetches the file again once they are gone."""
    if len(dangling) <= _SHOWN:
        remove = " ".join(["rm", *map(quoted, dangling)])
    else:
        top = dangling[0].parents[len(dangling[0].parents) - 1]
        top = next((each for each in dangling[0].parents if each.name == "snapshots"), top)
        remove = f"find {quoted(top)} -xtype l -delete"
    fetch = "diachunk fetch --place" if offline else "hf download"
    target = f"hub:{name}" if offline else name
    return f"{remove}  # then the program fetches it again, or: {fetch} {shlex.quote(target)}"


def switches(patient: Patient) -> Iterator[Finding]:
    """Variables that change what the Hub's clients do."""
    for variable, meaning in _SWITCHES.items():
        if is_on(patient, variable):
            yield _found(Level.NOTE, f"{variable} is set: it {meaning}")
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if is_on(patient, name)]
    if not offline:
        return
    missing = [name for repository in repositories(patient) if (name := _half(repository))]
    if missing:
        what = (
            f"{' and '.join(offline)} set, but {missing[0]} is not complete in the Hub's cache: programs fail"
        )
        yield _found(
            Level.FAULT, what, f"unset {' '.join(offline)}  # then fetch what is missing, and set it again"
        )
    else:
        yield _found(Level.NOTE, f"{' and '.join(offline)} set: programs ask the Hub for nothing")


def _half(repository: Path) -> str:
    """The name of a repository of which refs/main has no snapshot, or one with links that lead nowhere; else ""."""
    for ref, commit in _refs(repository):
        snapshot = repository / "snapshots" / commit
        whole = is_commit(commit) and snapshot.is_dir() and all(path.exists() for path in _links(snapshot))
        if ref == "main" and not whole:
            return repository_of(repository.name)
    return ""
