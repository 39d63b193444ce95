"""The caches that diachunk knows, by kind. A new one is its own file and one line here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
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


def caches(environment: Mapping[str, str]) -> tuple[Place, ...]:
    """Every known cache of a user, where the real programs would look for it; they may not exist."""
    return tuple(make(environment) for make in KINDS.values())


def cache_of(text: str | os.PathLike[str], environment: Mapping[str, str]) -> Place:
    """The cache of a kind, or the directory of that name (`./hub` for one that is called like a kind).

    Raises:
        UsageError: no file system could hold that name.
    """
    name = os.fspath(text)
    if isinstance(text, str) and name in KINDS:
        return KINDS[name](environment)
    if "\0" in name or not name:
        raise UsageError(f"{name!r}: not a directory name", hint=f"a directory, or {', '.join(KINDS)}")
    if (
        isinstance(text, str)
        and "/" not in name
        and not os.path.exists(name)
        and (meant := get_close_matches(name, KINDS, 1, 0.7))
    ):
        raise UsageError(
            f"no kind of place is called {name!r}", hint=f"did you mean {meant[0]}? a directory is ./{name}"
        )
    return Directory(Path(os.path.abspath(name)))
