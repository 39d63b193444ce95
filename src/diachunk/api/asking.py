"""Other machines, asked what nothing here knows: what a name stands for, and the manifest of an id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from diachunk.api.context import Context
from diachunk.api.trust.admission import admit, known_of
from diachunk.api.trust.naming import Choice, How, Offer, choose, newer
from diachunk.digest import Digest
from diachunk.errors import ManifestError
from diachunk.manifest import Manifest
from diachunk.manifest.parts import part_of_manifest
from diachunk.manifest.recipe import Recipe
from diachunk.manifest.stated import StatedCheckpoint
from diachunk.manifest.statement import Statement


def ask_for_name(name: str, revision: str, context: Context) -> Manifest | None:
    """What a name stands for that nothing here knows; None if no machine says, or this call has no company.

    Raises:
        TrustError: nobody trusted says, or they disagree.
    """
    if context.sharing is None:
        return None
    known = known_of(name, revision, context.config, context.store.catalog)
    choice = choose(name, revision, offers_of(name, revision, context), known, context.sharing.how.ask)
    return None if choice is None else _take(choice, context, f"the name {name}@{revision}")


def ask_for_newer(name: str, revision: str, context: Context) -> Manifest | None:
    """What a name that is known here should stand for now; None if nobody has anything newer.

    Raises:
        TrustError: named machines disagree, or only versions that are not to be trusted are offered.
    """
    if context.sharing is None:
        return None
    known = known_of(name, revision, context.config, context.store.catalog)
    choice = newer(name, revision, offers_of(name, revision, context), known)
    return None if choice is None else _take(choice, context, f"the name {name}@{revision}")


def ask_for_id(manifest_id: Digest, context: Context) -> Manifest | None:
    """The manifest of an id that is not here; what hashes to it needs no trust.

    Raises:
        TrustError: it must be signed, and is not.
    """
    manifest = None if context.sharing is None else context.sharing.manifest(manifest_id)
    if manifest is not None:
        admit(manifest, context.config, context.store.catalog, manifest.hex_id[:16], by_id=True)
    return manifest


def offers_of(name: str, revision: str, context: Context) -> list[Offer]:
    """What other machines say that a name stands for; nothing where this call has no company."""
    if context.sharing is None:
        return []
    found = context.sharing.refs(name, revision)
    return [Offer(each.address, How(each.how), each.id, each.manifest) for each in found]


def offers_of_stated(stated: StatedCheckpoint, recipe: Recipe, context: Context) -> list[Offer]:
    """The same for a recipe's name, and for manifests that claim to be of its very files, under whatever name; for a
    part also what is said of it by those who have the whole.
    """
    if context.sharing is None:
        return []
    statement = Statement.of(stated.walk(), private=stated.private)
    found = context.sharing.refs(stated.name, stated.revision, statement)
    offers = [Offer(each.address, How(each.how), each.id, each.manifest) for each in found]
    if recipe.whole is not None:
        offers += _offers_of_part(recipe, offers_of(recipe.whole.name, recipe.whole.revision, context))
    return offers


def _offers_of_part(part: Recipe, offers: Iterable[Offer]) -> Iterator[Offer]:
    cuts: dict[Digest, Manifest | None] = {}  # most offer the same, and its chunks may be very many
    for offer in offers:
        if offer.manifest is not None and offer.id not in cuts:
            try:
                cuts[offer.id] = part_of_manifest(offer.manifest, part)
            except ManifestError:
                cuts[offer.id] = None  # it has none of these components
        cut = cuts.get(offer.id)
        if cut is not None:
            yield Offer(offer.address, offer.how, cut.id, cut)


def _take(choice: Choice, context: Context, whence: str) -> Manifest | None:
    assert context.sharing is not None
    had = (each.manifest for each in choice.offers if each.manifest is not None)
    manifest = next(had, None) or context.sharing.manifest(choice.id)
    if manifest is None and choice.id in context.store.catalog.ids():
        manifest = context.store.catalog.get(choice.id)
    if manifest is not None:
        context.sharing.tell(f"{manifest.ref} is {manifest.hex_id[:16]}…: {choice.why}")
        admit(manifest, context.config, context.store.catalog, whence)
    return manifest
