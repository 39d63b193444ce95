"""Recipes: a short TOML that says which upstream files make a checkpoint. docs/recipes.md has the grammar.

A recipe holds no digests of chunks; fetching or publishing it yields a manifest, the same on every machine if the
recipe names commits and digests rather than branches.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from diachunk.errors import ManifestError
from diachunk.limits import DEFAULT, Limits
from diachunk.manifest.model import DEFAULT_REVISION
from diachunk.manifest.names import is_component, is_name, is_revision
from diachunk.manifest.paths import fold, path_fault
from diachunk.manifest.stated import StatedFile
from diachunk.manifest.strict_json import describe, quote
from diachunk.project import PLACE_KINDS

RECIPE_BYTES_MAX = 1024 * 1024
PATTERNS_MAX = 256
"""Each is matched with every path of the repository."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")
_URL = re.compile(r"https?://[!-~]{1,2000}")
_DEEP_KEY = re.compile(
    r"""(?:^|[\[{,])[ \t]*(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){8}""", re.MULTILINE
)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HubUpstream:
    """Files of a repository on the Hub.

    Attributes:
        repository: ORG/REPO.
        revision: a commit, or a branch or tag, which then decides what the recipe yields today.
        files: names or patterns as of `fnmatch` (`*.json`); () for all.
        exclude: the same, to leave out.
    """

    repository: str
    revision: str = DEFAULT_REVISION
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def pinned(self) -> bool:
        return _COMMIT.fullmatch(self.revision) is not None


@dataclass(frozen=True, slots=True)
class UrlUpstream:
    """Files at a URL: of one file, or a template with {path}. Sizes and digests are the recipe's own."""

    url: str
    files: tuple[StatedFile, ...]


@dataclass(frozen=True, slots=True)
class RecipeComponent:
    """One component of a recipe. See StatedComponent for `mirrors` and `places`."""

    name: str
    upstream: HubUpstream | UrlUpstream
    mirrors: tuple[str, ...] = ()
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which upstream files make a checkpoint.

    Attributes:
        whole: of a part (manifest/parts.py), the recipe that it is a part of; None otherwise.
    """

    name: str
    revision: str
    components: tuple[RecipeComponent, ...]
    whole: Recipe | None = None

    @property
    def ref(self) -> str:
        """NAME@REVISION."""
        return f"{self.name}@{self.revision}"

    @property
    def pinned(self) -> bool:
        """Whether it yields the same manifest whenever it is published."""
        hubs = (each.upstream for each in self.components if isinstance(each.upstream, HubUpstream))
        return all(each.pinned for each in hubs)


def hub_upstream(repository: str, revision: str = DEFAULT_REVISION) -> HubUpstream:
    """What `hub:ORG/REPO[@REV]` names.

    Raises:
        ManifestError: not the name of a repository or revision.
    """
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise ManifestError(
            f"{quote(repository)} is not a repository", hint="such as nari-labs/Dia-1.6B-0626"
        )
    if not _BRANCH.fullmatch(revision) or ".." in revision:
        raise ManifestError(f"{quote(revision)} is not a revision of a repository", hint="such as main")
    return HubUpstream(repository, revision)


def parse_recipe(data: bytes, limits: Limits = DEFAULT) -> Recipe:
    """Reads a recipe from untrusted bytes.

    Raises:
        ManifestError: not TOML, an unknown key, or a value that could not stand in a manifest.
    """
    if len(data) > RECIPE_BYTES_MAX:
        raise ManifestError(f"a recipe of more than {RECIPE_BYTES_MAX:,} bytes")
    try:
        text = data.decode()
        if _DEEP_KEY.search(text):  # tomllib takes memory by the square of it
            raise ManifestError("a key of more than 8 parts")
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"not TOML: {error}") from error
    name = _take(table, "name", str, "the recipe")
    revision = _take_optional(table, "revision", str, "the recipe", DEFAULT_REVISION)
    if not is_name(name):
        raise ManifestError(f"{quote(name)} is not a name", hint="such as dia-1.6b or nari-labs/dia-1.6b")
    if not is_revision(revision):
        raise ManifestError(f"{quote(revision)} is not a revision")
    entries = _take(table, "component", list, "the recipe")
    _refuse_unknown(table, "the recipe")
    components = tuple(_component(each, index, limits) for index, each in enumerate(entries))
    if not components:
        raise ManifestError("the recipe has no component")
    names = [each.name.casefold() for each in components]
    if len(set(names)) != len(names) or ("" in names and len(names) > 1):
        raise ManifestError("components need names of their own", hint='name = "model" in each [[component]]')
    return Recipe(name, revision, components)


def _component(entry: object, index: int, limits: Limits) -> RecipeComponent:
    where = f"component {index}"
    if not isinstance(entry, dict):
        raise ManifestError(f"{where} is {describe(entry)}, not a table")
    name = _take_optional(entry, "name", str, where, "")
    if not is_component(name):
        raise ManifestError(f"{where}: {quote(name)} is not a component's name")
    where = f"component {name}" if name else where
    mirrors, places = _strings(entry, "mirrors", where), _strings(entry, "places", where)
    for mirror in mirrors:
        _check_url(mirror, where)
    for kind in places:
        if kind not in PLACE_KINDS:
            raise ManifestError(
                f"{where}: no kind of place is called {quote(kind)}", hint=f"known: {', '.join(PLACE_KINDS)}"
            )
    if ("hub" in entry) == ("url" in entry):
        raise ManifestError(f"{where} needs either `hub` or `url`")
    upstream = _hub(entry, where) if "hub" in entry else _url(entry, name, where, limits)
    _refuse_unknown(entry, where)
    return RecipeComponent(name, upstream, mirrors, places)


def _hub(entry: dict[str, Any], where: str) -> HubUpstream:
    repository = _take(entry, "hub", str, where)
    revision = _take_optional(entry, "revision", str, where, DEFAULT_REVISION)
    try:
        named = hub_upstream(repository, revision)
    except ManifestError as error:
        raise ManifestError(f"{where}: {error.message}", hint=error.hint) from error
    files, exclude = _strings(entry, "files", where), _strings(entry, "exclude", where)
    for patterns in (files, exclude):
        if sum(any(char in each for char in "*?[") for each in patterns) > PATTERNS_MAX:
            raise ManifestError(f"{where}: more than {PATTERNS_MAX} patterns; names may be many more")
    return HubUpstream(named.repository, named.revision, files, exclude)


def _url(entry: dict[str, Any], component: str, where: str, limits: Limits) -> UrlUpstream:
    url = _take(entry, "url", str, where)
    _check_url(url, where)
    if "file" in entry:
        rows = _take(entry, "file", list, where)
        if "{path}" not in url:
            raise ManifestError(f"{where}: a url for several files needs {{path}} in it")
    else:
        keys = [key for key in ("path", "size", "sha256") if key in entry]
        rows = [{key: entry.pop(key) for key in keys}]
    files = tuple(_stated(row, component, where, limits) for row in rows)
    folded = [fold(file.path) for file in files]
    if len(set(folded)) != len(folded) or not files:
        raise ManifestError(f"{where} needs files, each with a path of its own")
    return UrlUpstream(url, files)


def _stated(row: object, component: str, where: str, limits: Limits) -> StatedFile:
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: a file is {describe(row)}, not a table")
    path = _take(row, "path", str, where)
    where = f"{where}, {quote(path, 120)}"
    if fault := path_fault(path, limits):
        raise ManifestError(f"{where}: the path {fault}")
    size, sha256 = _take(row, "size", int, where), _take(row, "sha256", str, where)
    _refuse_unknown(row, where)
    if not 0 <= size < 2**53:
        raise ManifestError(f"{where}: {describe(size)} is not a size in bytes")
    if not _SHA256.fullmatch(sha256):
        raise ManifestError(f"{where}: sha256 is not 64 lower-case hex digits")
    return StatedFile(component, path, size, sha256)


def _check_url(url: str, where: str) -> None:
    authority = url.partition("://")[2].partition("/")[0].partition("?")[0]
    if not _URL.fullmatch(url) or not authority or "@" in authority or "\\" in url:
        raise ManifestError(f"{where}: {quote(url)} is not an http(s) URL without a login")


def _strings(entry: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = _take_optional(entry, key, list, where, [])
    if not all(isinstance(each, str) and 0 < len(each) <= 2048 for each in values) or len(values) > 10_000:
        raise ManifestError(f"{where}: {key} must be a list of strings")
    return tuple(values)


def _take(entry: dict[str, Any], key: str, kind: type[_T], where: str) -> _T:
    if key not in entry:
        raise ManifestError(f"{where} has no {key!r}")
    value = entry.pop(key)
    if type(value) is not kind:
        raise ManifestError(f"{where}: {key!r} must be a {kind.__name__}, not {describe(value)}")
    return value


def _take_optional(entry: dict[str, Any], key: str, kind: type[_T], where: str, default: _T) -> _T:
    return _take(entry, key, kind, where) if key in entry else default


def _refuse_unknown(entry: Mapping[str, Any], where: str) -> None:
    if entry:
        raise ManifestError(f"{where} has {quote(min(entry))}, which no recipe has")
