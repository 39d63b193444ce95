"""publish, of a recipe: fetched and published in one go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.drafting import draw
from diachunk.api.recipes import bundled_recipes, remember, state
from diachunk.api.targets import By, Upstream, look_up
from diachunk.errors import UsageError
from diachunk.manifest import Manifest, encode
from diachunk.manifest.names import parse_ref
from diachunk.manifest.signed import Signature
from diachunk.store.files import Files
from diachunk.transfer.progress import Listener, Status


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing yielded. `file` is where the manifest was written, `left_out` what was skipped, `signature`
    what was put on it just now.
    """

    manifest: Manifest
    file: Path | None
    left_out: tuple[Path, ...]
    signature: Signature | None = None

    @property
    def id(self) -> str:
        return self.manifest.hex_id


def is_recipe(sources: Sequence[str]) -> bool:
    """Whether what is to be published is a recipe, rather than files.

    Raises:
        UsageError: it is one among others.
    """
    found = [text for text in sources if text.startswith("hub:") or _names_a_recipe(text)]
    if found and len(sources) > 1:
        raise UsageError(f"{found[0]}: one recipe at a time, and no files beside it")
    return bool(found)


def _names_a_recipe(text: str) -> bool:
    """A recipe's file, or the name of one that ships with the package, unless something here is called that."""
    if text.endswith(".toml"):
        return "=" not in text or os.path.lexists(text)
    return not os.path.lexists(text) and _is_bundled(text)


def _is_bundled(text: str) -> bool:
    return any(text in (each.name, each.ref) for each in bundled_recipes())


def publish_recipe(
    text: str,
    context: Context,
    *,
    name: str | None,
    revision: str | None,
    origins: Sequence[str],
    out: str | os.PathLike[str] | None,
    force: bool,
    private: bool,
    progress: Listener,
) -> Published:
    """See `publish`. Always asks upstream what it states now."""
    recipe = next((each for each in bundled_recipes() if text in (each.name, each.ref)), None)
    if recipe is not None and not os.path.lexists(text):
        found: object = Upstream(recipe, By.NAME)
    else:
        found = look_up(text if text.startswith(("hub:", "/", "./", "../")) else f"./{text}", context)
    assert isinstance(found, Upstream)
    stated = state(found.recipe, context)
    called, version = parse_ref(f"{name or stated.name}@{revision or stated.revision}")
    stated = replace(stated, name=called, revision=version)
    progress(
        Status(
            sum(each.size for each in {file.key: file for file in stated.walk()}.values()), 0.0, None, "", ()
        )
    )
    if private:
        for file in stated.walk():
            context.store.catalog.mark_private(file.key)  # which the manifest takes over, before it is known
    drawn, _ = draw(stated, context, listener=progress)
    manifest = replace(drawn, origins=tuple(origins)) if origins else drawn
    store = context.store
    store.catalog.check_ref(called, version, manifest.id, force=force)
    store.catalog.add(manifest)
    if (called, version) == (found.recipe.name, found.recipe.revision):
        remember(found.recipe, stated, manifest, context)
    store.snapshots.build(manifest)
    store.catalog.set_ref(called, version, manifest.id, force=force)
    store.snapshots.name(called, version, manifest.id)
    return Published(manifest, write_out(manifest, out), ())


def write_out(manifest: Manifest, out: str | os.PathLike[str] | None) -> Path | None:
    """Writes a manifest to a file of the user's; returns which, or None if none was asked for."""
    if out is None:
        return None
    Files(0o755).replace_text(Path(out), encode(manifest), durable=True)
    return Path(out)
