"""TARGET: what a user may write for a checkpoint, and which manifest it stands for."""

from __future__ import annotations

import enum
import os
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from diachunk.api.context import Context, bundled_manifests
from diachunk.api.nearby import unknown
from diachunk.api.parts import here_of, not_fetched, recipe_called
from diachunk.api.recipes import HUB_SCHEME, NOTHING_PICKED, Pick, drawn, hub_recipe, read_recipe
from diachunk.digest import Digest, is_git_id, parse_digest
from diachunk.errors import (
    DiachunkError,
    ManifestError,
    TransferIncomplete,
    TrustError,
    UsageError,
    from_os_error,
)
from diachunk.manifest import Manifest, decode
from diachunk.manifest.names import is_name, parse_ref
from diachunk.manifest.recipe import Recipe
from diachunk.sources.base import SourceFault
from diachunk.sources.context import SourceContext, split_url
from diachunk.sources.hub_access import repository_of_page
from diachunk.sources.local import open_regular
from diachunk.sources.secret import WANTS_SECRET

if TYPE_CHECKING:
    from diachunk.api.sharing import Sharing

_ID = re.compile(r"[0-9a-f]{8,64}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{8,39}")
_SAME_SECRET = (
    "the same token_file on both machines, and the right time; `diachunk config` shows which is read"
)
_ASK_AGAIN = "a machine that may know it did not answer: `diachunk peers` says why; then run the same again"


class By(enum.Enum):
    """How a target was named; only names are moved by a fetch."""

    NAME = "name"
    ID = "id"
    FILE = "file"
    URL = "url"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class Resolved:
    """A target's manifest, and the URL that it came from, or "".

    Attributes:
        moves_name: the name stands for another manifest here, and a trusted machine has this one for it.
    """

    manifest: Manifest
    by: By
    url: str = ""
    moves_name: bool = False


@dataclass(frozen=True, slots=True)
class Upstream:
    """A target whose chunks nobody here knows yet: a recipe, to be fetched file by file."""

    recipe: Recipe
    by: By


def resolve(
    text: str, context: Context, *, local: bool = False, components: Collection[str] = ()
) -> Resolved:
    """Finds the manifest that TARGET stands for; of a recipe, the one that it became here.

    Args:
        local: for verbs that only look at what is here: a name also finds a stored manifest that bears it.
        components: these are wanted: of a recipe, a part that has them will do. A name alone never means a part.

    Raises:
        UsageError: nothing here goes by that target; says what would.
        ManifestError: the file or URL holds no valid manifest.
        TransferIncomplete: the URL did not answer.
        TrustError: it comes from there, and is not to be trusted.
    """
    found = look_up(text, context, local=local)
    if isinstance(found, Resolved):
        return found
    manifest = drawn(found.recipe, context)
    if manifest is None and components:
        manifest = here_of(found.recipe, frozenset(components), context)
    if manifest is None and (local or found.by is By.HUB):
        recipe = found.recipe
        bare = found.by is By.HUB and "@" not in text
        bearing = _bearing(recipe.name, recipe.revision, context, local=bare)
        manifest = context.store.catalog.get(bearing[0]) if len(bearing) == 1 else None
    if manifest is None:
        raise not_fetched(text, found.recipe, context, local=local)
    return Resolved(manifest, found.by)


def look_up(
    text: str, context: Context, *, local: bool = False, pick: Pick = NOTHING_PICKED
) -> Resolved | Upstream:
    """Finds what TARGET stands for; of a repository, the files that are picked. See `resolve`."""
    if "\0" in text:
        raise UsageError("a target cannot hold a NUL character")
    if text.startswith(HUB_SCHEME):
        return Upstream(hub_recipe(text, pick), By.HUB)
    if pick:
        raise UsageError(f"{text}: files can be picked of hub:ORG/REPO alone", hint="or write a recipe")
    if "://" in text:
        if repository := repository_of_page(text):
            raise UsageError(f"{text} is a page of the Hub", hint=f"name it {HUB_SCHEME}{repository}")
        return _let_in(_from_url(text, context), text, context, local=local)
    if text.startswith(("./", "../", "/")) or text.endswith((".json", ".toml")):
        path = Path(text)
        if path.suffix == ".toml":
            return Upstream(read_recipe(path), By.FILE)
        return _let_in(Resolved(_from_file(path, context), By.FILE), text, context, local=local)
    if _ID.fullmatch(text) and (found := _by_id(text, context)) is not None:
        return Resolved(found, By.ID)
    return _by_name(text, context, local=local)


def _from_url(text: str, context: Context) -> Resolved:
    limits = context.config.limits
    split = split_url(text)
    if split.scheme == "file":
        if split.netloc not in ("", "localhost"):
            raise UsageError(f"{text}: file:// takes no host", hint="file:///absolute/path")
        return Resolved(_from_file(Path(unquote(split.path)), context), By.FILE)
    if not text.startswith(("http://", "https://")):
        raise UsageError(f"{text}: not an http(s) or file URL")
    from diachunk.sources.document import fetch_document  # `ls` and its like need no HTTP

    private: list[bool] = []
    data = fetch_document(
        text, SourceContext(limits), limits.manifest_bytes_max, lambda: private.append(True)
    )
    manifest = _decode(data, text, context)
    if private:
        context.store.catalog.mark_private(manifest.id)
    return Resolved(manifest, By.URL, text)


def _let_in(found: Resolved, whence: str, context: Context, *, local: bool) -> Resolved:
    """What comes from a file or a URL is only looked at, or was let in.

    Raises:
        TrustError: it may not be used here.
    """
    config = context.config
    if not local and (config.require_signed or config.allowed_signers is not None):
        from diachunk.api.trust.admission import admit

        admit(found.manifest, config, context.store.catalog, whence)
    return found


def _from_file(path: Path, context: Context) -> Manifest:
    limit = context.config.limits.manifest_bytes_max
    if path.is_dir():
        what = (
            f"of files of your own: `{shlex.join(('diachunk', 'publish', str(path), '--name', 'ORG/NAME'))}`"
        )
        raise UsageError(f"{path} is a directory, no manifest", hint=f"`diachunk ls` lists the names; {what}")
    try:
        fd = open_regular(path)
        with open(fd, "rb") as file:
            data = file.read(min(limit, os.fstat(fd).st_size) + 1)
    except SourceFault as fault:
        raise UsageError(f"{path}: no such manifest file (not a regular file)") from fault
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError) as error:
        raise UsageError(f"{path}: no such manifest file") from error
    except OSError as error:
        raise from_os_error(error, "read", path) from error
    return _decode(data, str(path), context)


def _decode(data: bytes, label: str, context: Context) -> Manifest:
    try:
        return decode(data, context.config.limits)
    except ManifestError as error:
        told = ManifestError(f"{label}: {error.message}", hint=error.hint)
        told.rule = error.rule
        raise told from error


def _by_id(text: str, context: Context) -> Manifest | None:
    """By full id or unique prefix; None when nothing matches and the text could be a name as well."""
    catalog = context.store.catalog
    if len(text) == 64:
        return _of_id(parse_digest(text), context)
    try:
        return catalog.get(catalog.by_prefix(text))
    except UsageError:
        if is_name(text) and not any(each.hex().startswith(text) for each in catalog.ids()):
            return None
        raise


def _of_id(wanted: Digest, context: Context) -> Manifest:
    if context.sharing is not None and wanted not in context.store.catalog.ids():
        from diachunk.api.asking import ask_for_id

        if (found := ask_for_id(wanted, context)) is not None:
            return found
    try:
        return context.store.catalog.get(wanted)
    except UsageError as error:
        raise _also(error, context.sharing) from error


def _by_name(text: str, context: Context, *, local: bool) -> Resolved | Upstream:
    name, revision = parse_ref(text)
    catalog = context.store.catalog
    found = catalog.ref(name, revision)
    if found is not None:
        if context.sharing is not None and context.sharing.how.newest and not local:
            from diachunk.api.asking import ask_for_newer

            if (newer := ask_for_newer(name, revision, context)) is not None:
                return Resolved(newer, By.NAME, moves_name=True)
        return Resolved(catalog.get(found), By.NAME)
    pinned = context.config.pins.get(f"{name}@{revision}")
    recipe = recipe_called(name, revision)
    bundled = {
        each.id: each for each in bundled_manifests() if (each.name, each.revision) == (name, revision)
    }
    if pinned is not None:
        wanted = bytes.fromhex(pinned)
        if recipe is not None and wanted not in bundled and wanted not in catalog.ids():
            return Upstream(recipe, By.NAME)  # what it becomes is compared with the pin
        return Resolved(bundled.get(wanted) or _of_id(wanted, context), By.NAME)
    if bundled:
        return Resolved(next(iter(bundled.values())), By.NAME)
    if recipe is not None:
        return Upstream(recipe, By.NAME)
    bearing = _bearing(name, revision, context, local=local and "@" not in text)
    if local and len(bearing) == 1:
        return Resolved(catalog.get(bearing[0]), By.NAME)
    if context.sharing is not None and not local:
        from diachunk.api.asking import ask_for_name

        if (asked := ask_for_name(name, revision, context)) is not None:
            return Resolved(asked, By.NAME)
    if bearing:
        ids = ", ".join(each.hex()[:16] for each in bearing)
        raise UsageError(
            f"no name {name}@{revision} here", hint=f"stored manifests bear it; fetch one by its id: {ids}"
        )
    raise _also(unknown(name, revision, context, local=local), None if local else context.sharing)


def _also(error: UsageError, sharing: Sharing | None) -> DiachunkError:
    """The error, with what the named machines did. Where one did not answer, nobody knows whether this is a mistake."""
    troubles = [] if sharing is None else sharing.troubles()
    if sharing is None or not troubles:
        return error
    message = f"{error.message}; {'; '.join(troubles)}"
    unheard = sharing.unheard()
    if not unheard:
        return UsageError(message, hint=error.hint)
    if all(each.startswith(WANTS_SECRET) for each in unheard):
        return TrustError(message, hint=_SAME_SECRET)
    return TransferIncomplete(message, hint=error.hint if "did you mean" in error.hint else _ASK_AGAIN)


def _bearing(name: str, revision: str, context: Context, *, local: bool) -> list[Digest]:
    """Ids of the stored manifests that call themselves so. What was fetched from the Hub has a commit for its
    revision: its first digits will do, and for verbs that only look at what is here, the name alone.
    """
    found = []
    for each in context.store.catalog.outlines():
        of_the_hub = is_git_id(each.revision)
        meant = each.revision == revision or (
            of_the_hub
            and (local or (_SHORT_COMMIT.fullmatch(revision) and each.revision.startswith(revision)))
        )
        if each.name == name and meant:
            found.append(each.id)
    return found
