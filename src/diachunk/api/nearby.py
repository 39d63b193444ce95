"""What somebody may have meant who named a checkpoint that is not known."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

from diachunk.api.context import Context, bundled_manifests
from diachunk.api.recipes import bundled_recipes
from diachunk.errors import UsageError
from diachunk.manifest.model import DEFAULT_REVISION

_SHOWN = 6
_ALIKE = 0.75


def unknown(name: str, revision: str, context: Context, *, local: bool) -> UsageError:
    """The error that names what is nearly so called, and what there is.

    Args:
        local: for verbs that only look at what is here: nothing else is named.
    """
    here = {_plain(str(ref)) for ref in context.store.catalog.refs()}
    shipped = {_plain(each.ref) for each in bundled_manifests()}
    shipped |= {_plain(each.ref) for each in bundled_recipes()}
    names = sorted(here if local else here | shipped)
    meant = _nearly(name, names)
    if meant:
        hint = f"did you mean {' or '.join(meant)}?"
    elif os.path.exists(name):
        hint = f"of files of your own: `diachunk publish {name} --name ORG/NAME`"
    elif local:
        hint = f"here: {_few(names)}" if names else _nothing_named(context, shipped)
    elif "/" in name:
        hint = f"on the Hub? diachunk fetch hub:{_plain(f'{name}@{revision}')}"
    else:
        hint = f"give a manifest file or URL; known: {_few(names)}"
    return UsageError(f"nothing here is called {_plain(f'{name}@{revision}')}", hint=hint)


def _nothing_named(context: Context, shipped: Iterable[str]) -> str:
    if context.store.catalog.ids():
        return "what is here has no name; `diachunk ls` lists the ids"
    return f"no checkpoints here yet; `diachunk fetch NAME` brings one, such as {_few(sorted(shipped))}"


def _plain(ref: str) -> str:
    return ref.removesuffix(f"@{DEFAULT_REVISION}")


def _few(names: list[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"


def _nearly(name: str, names: Iterable[str]) -> list[str]:
    """Names whose last part is the word, or begins with it, or is spelled nearly so."""
    word = name.rpartition("/")[2].lower()
    found = []
    for each in names:
        last = each.rpartition("/")[2].partition("@")[0].lower()
        alike = difflib.SequenceMatcher(None, word, last).ratio() >= _ALIKE
        if alike or last == word or last.startswith(f"{word}-"):
            found.append(each)
    return found[:3]
