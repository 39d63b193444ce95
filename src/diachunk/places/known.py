"""The caches that diachunk knows, by kind. A new one is its own file and one line here.

Others come from the entry point group `diachunk.places`, and are asked only where a user names their kind: manifests
and recipes, which anybody may have written, choose among the built-in ones. docs/places.md shows how to add one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path

from diachunk.errors import UsageError
from diachunk.places.base import Place
from diachunk.places.descript import Descript
from diachunk.places.dia import Dia
from diachunk.places.directory import Directory
from diachunk.places.hub import Hub

KINDS: Mapping[str, Callable[[Mapping[str, str]], Place]] = {
    "hub": Hub.of,
    "descript": Descript.of,
    "dia": Dia.of,
}
"""What manifests may name."""
GROUP = "diachunk.places"
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def kinds() -> tuple[str, ...]:
    """All kinds that a user may name, the built-in ones first."""
    return (*KINDS, *sorted({each.name for each in entry_points(group=GROUP)} - KINDS.keys()))


def cache_called(kind: str, environment: Mapping[str, str]) -> Place | None:
    """The cache of that kind, built in or of a plug-in; None if there is none.

    Raises:
        UsageError: its plug-in does not load, or is for another kind.
    """
    if kind in KINDS:
        return KINDS[kind](environment)
    found = entry_points(group=GROUP, name=kind) if _KIND.fullmatch(kind) else ()
    for entry in found:
        try:
            place: Place = entry.load()(environment)
            own = place.kind
        except UsageError:
            raise
        except Exception as error:  # a package that was installed by halves may raise anything
            what = f"{type(error).__name__}: {error}"
            raise UsageError(
                f"the plug-in for places of kind {kind} ({entry.value}) does not load: {what:.200}"
            ) from error
        if own != kind:
            raise UsageError(f"the plug-in for places of kind {kind} ({entry.value}) is for {own!r:.40}")
        return place
    return None


def caches(environment: Mapping[str, str]) -> tuple[Place, ...]:
    """Every built-in cache of a user, where the real programs would look for it; they may not exist. Not those of
    plug-ins: to look for these takes time, and every fetch asks.
    """
    return tuple(make(environment) for make in KINDS.values())


def cache_of(text: str | os.PathLike[str], environment: Mapping[str, str]) -> Place:
    """The cache of a kind, or the directory of that name (`./hub` for one that is called like a kind).

    Raises:
        UsageError: no file system could hold that name, or see `cache_called`.
    """
    name = os.fspath(text)
    if isinstance(text, str) and (place := cache_called(name, environment)) is not None:
        return place
    if "\0" in name or not name:
        raise UsageError(f"{name!r}: not a directory name", hint=f"a directory, or {', '.join(kinds())}")
    if (
        isinstance(text, str)
        and "/" not in name
        and not os.path.exists(name)
        and (meant := get_close_matches(name, kinds(), 1, 0.7))
    ):
        raise UsageError(
            f"no kind of place is called {name!r}", hint=f"did you mean {meant[0]}? a directory is ./{name}"
        )
    return Directory(Path(os.path.abspath(name)))
