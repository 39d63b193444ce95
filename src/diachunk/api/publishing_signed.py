"""publish --sign: a signature on what was just published, or on what has been here for long."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.publishing_recipes import Published, is_recipe, write_out
from diachunk.api.targets import resolve
from diachunk.api.trust.admission import next_serial
from diachunk.api.trust.signing import check_key, sign
from diachunk.errors import TrustError
from diachunk.manifest.signed import with_signatures


def publish_signed(
    sources: Sequence[str],
    sign_with: str | os.PathLike[str],
    publish: Callable[[], Published],
    *,
    name: str | None,
    out: str | os.PathLike[str] | None,
    context: Context | None,
    private: bool,
) -> Published:
    """Publishes and signs, or signs what a name or id stands for here: then no file is read.

    Args:
        publish: does the first; not called before it is known that there is a key.
        out: also write the signed manifest to this file.
        context: None where it goes to no store.

    Raises:
        UsageError: no such key; or nothing here goes by that name.
        TrustError: it could not be signed.
    """
    key = check_key(sign_with)
    if context is not None and name is None and _is_stored(sources) and not is_recipe(sources):
        manifest = resolve(sources[0], context, local=True).manifest
        if private:
            context.store.catalog.mark_private(manifest.id)
        published = Published(manifest, None, ())
    else:
        published = publish()
    return sign_published(published, key, context, out=out)


def _is_stored(sources: Sequence[str]) -> bool:
    """Whether what is meant is a checkpoint that is here, by name or id, rather than files to publish."""
    text = sources[0] if len(sources) == 1 else "./"
    is_a_path = text.startswith(("./", "../", "/", "~")) or "=" in text or "://" in text
    return not is_a_path and not text.endswith((".json", ".toml")) and not os.path.lexists(text)


def sign_published(
    published: Published, key: Path, context: Context | None, *, out: str | os.PathLike[str] | None = None
) -> Published:
    """Signs a manifest, in the store and in the file that it was written to as well.

    Args:
        context: None where it went to no store.

    Raises:
        TrustError: it could not be signed; published it is all the same.
    """
    manifest = published.manifest
    catalog = None if context is None else context.store.catalog
    try:
        signature = sign(manifest, key, next_serial(manifest, catalog))
    except TrustError as error:
        again = (
            f"then sign what is published: diachunk publish {manifest.ref} --sign {key}" if catalog else ""
        )
        raise TrustError(error.message, hint="; ".join(filter(None, (error.hint, again)))) from error
    manifest = with_signatures(manifest, [signature])
    if catalog is not None:
        catalog.add_signatures(manifest.id, [signature])
        catalog.note_seen(manifest.name, manifest.revision, signature.serial, manifest.id)
        manifest = catalog.get(manifest.id)
    return replace(published, manifest=manifest, file=write_out(manifest, out), signature=signature)
