"""What the shell offers after TAB. Whatever goes wrong here, the answer is no offer and no message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from diachunk.errors import UsageError

if TYPE_CHECKING:
    from diachunk.api.context import Context
    from diachunk.manifest import Manifest


def offer(*words: str) -> Callable[[str], list[str]]:
    """For an option that takes one of these words."""
    return lambda incomplete: [each for each in words if each.startswith(incomplete)]


def known_names() -> list[str]:
    """Names that a target may be here, sorted: local ones, pinned and listed ones, and those of the package."""
    from diachunk.api.context import Context, bundled_manifests
    from diachunk.api.recipes import bundled_recipes
    from diachunk.config import load_config
    from diachunk.project import find_project_file

    context = Context.make(settings=load_config(project_file=find_project_file()))
    names = {each.ref for each in bundled_manifests()} | set(context.config.pins)
    names |= {each.ref for each in bundled_recipes()}
    names |= {each.target for each in context.config.checkpoints}
    if _store_exists(context):
        names |= {str(ref) for ref in context.store.catalog.refs()}
    return sorted(name.removesuffix("@main") for name in names)


def complete_target(incomplete: str) -> list[str]:
    """Names that go on as typed. Paths are the shell's own business."""
    try:
        return [name for name in known_names() if name.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - an error message in the middle of a command line helps nobody
        return []


def complete_component(ctx: typer.Context, incomplete: str) -> list[str]:
    """The components of the TARGET that stands on the line already. Asks no network."""
    # An option that still lacks its value stops the parser: the words are then all in `args`.
    words = [ctx.params.get("target"), *ctx.args]
    for word in words:
        if isinstance(word, str) and word and not word.startswith("-") and "://" not in word:
            names = _components(word)
            if names:
                return [name for name in names if name.startswith(incomplete)]
    return []


def _components(word: str) -> list[str]:
    """Names of the components, if `word` is a target."""
    from diachunk.api.parts import recipe_at

    try:
        if (recipe := recipe_at(word)) is not None:  # said without its having been fetched
            return [each.name for each in recipe.components if each.name]
        return [each.name for each in _manifest(word).components if each.name]
    except Exception:  # noqa: BLE001 - as above
        return []


def _manifest(target: str) -> Manifest:
    from diachunk.api.context import Context, bundled_manifests
    from diachunk.api.targets import resolve

    manifest = next((each for each in bundled_manifests() if target in (each.ref, each.name)), None)
    if manifest is None:
        context = Context.make()
        if not _store_exists(context) and not target.endswith(".json"):
            raise UsageError(f"nothing here is called {target}")
        return resolve(target, context, local=True).manifest
    return manifest


def _store_exists(context: Context) -> bool:
    """A TAB must not make a store."""
    return (context.config.home / "refs").is_dir()
