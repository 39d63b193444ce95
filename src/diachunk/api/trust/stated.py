"""A recipe's files from other machines: by a manifest that one of them has, of which nothing is believed.

Upstream states sizes and digests of whole files, which cannot be fetched from several machines at once: nobody could
say which piece was wrong. Others may have a manifest that says what the pieces are. It is used to bring the files here,
with their SHA-256 and git ids computed on the way; then the recipe is drawn as ever, from what is here. Where the
manifest was right, nothing is left to fetch; where it was a lie, upstream is asked after all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from diachunk.api.context import Context
from diachunk.api.drafting import Knowledge, draw, with_hints
from diachunk.api.foreign.claims import adopt_known
from diachunk.api.trust.naming import Offer
from diachunk.digest import Digest
from diachunk.errors import IntegrityError, TransferIncomplete
from diachunk.manifest import Manifest
from diachunk.manifest.stated import StatedCheckpoint, StatedFile, matches_statement
from diachunk.schedule.work import files_of
from diachunk.store.collect import forget
from diachunk.transfer.assemble import Report
from diachunk.transfer.progress import Listener, Notice, Retractable, words_only

_TRIED_MAX = 2
"""A lie costs one transfer of the checkpoint, in vain."""


def draw_in_company(
    stated: StatedCheckpoint,
    offers: Callable[[], Iterable[Offer]],
    context: Context,
    *,
    origins: Sequence[str] = (),
    max_down_bps: int | None = None,
    listener: Listener,
) -> tuple[Manifest, Report]:
    """As `drafting.draw`, by way of a manifest that others offer for the recipe's name, where there is one.

    Args:
        offers: asks machines what the name stands for, if anything is missing here; those without a manifest, or
            with one that is of other files, are passed over.

    Raises:
        As `drafting.draw`.
    """
    brought: Report | None = None
    for offer in _candidates(stated, offers())[:_TRIED_MAX] if _missing(stated, context) else ():
        assert offer.manifest is not None
        told = Retractable(listener)
        brought = _bring(stated, offer.manifest, context, origins, max_down_bps, told)
        if brought is not None:
            break
        told.retract()
        listener(Notice(f"what {offer.address} offers as {stated.ref} is left: upstream is asked for it"))
    # Once more from the start, and by what this machine computed itself: the manifest is ours, and so is its id.
    manifest, report = draw(
        stated,
        context,
        origins=origins,
        max_down_bps=max_down_bps,
        listener=listener if brought is None else words_only(listener),
    )
    return manifest, report if brought is None else _sum(brought, report)


def _candidates(stated: StatedCheckpoint, offers: Iterable[Offer]) -> list[Offer]:
    """One offer an id, of manifests that claim to be what is stated: first what named machines say, then what most
    do. Everybody who draws a recipe comes to the same id, so most are right unless most lie.
    """
    right = [
        each for each in offers if each.manifest is not None and matches_statement(each.manifest, stated)
    ]
    named = Counter(each.id for each in right if each.how.is_named)
    every = Counter(each.id for each in right)
    first: dict[Digest, Offer] = {}
    for each in right:
        first.setdefault(each.id, each)
    return sorted(first.values(), key=lambda each: (-named[each.id], -every[each.id]))


def _missing(stated: StatedCheckpoint, context: Context) -> list[StatedFile]:
    knowledge = Knowledge(context.store)
    return [file for file in stated.walk() if knowledge.find(file) is None]


def _bring(
    stated: StatedCheckpoint,
    offered: Manifest,
    context: Context,
    origins: Sequence[str],
    max_down_bps: int | None,
    listener: Listener,
) -> Report | None:
    """Fetches by an offered manifest; None if it did not bring what was stated: then it is forgotten."""
    catalog = context.store.catalog
    # Upstream and the user say where else the files are, and where they are shown; not who has the manifest.
    manifest = with_hints(offered, stated)
    was_here = manifest.id in catalog.ids()
    if stated.private:
        catalog.mark_private(manifest.id)
    catalog.add(manifest)
    destination = context.destination(None, force=False)
    files = files_of(manifest, None, merged=destination.merges_equal_files)
    adopt_known(context, files, listener)
    assembly = context.assembly(manifest, destination, origins, max_down_bps, listener, names=True)
    try:
        report = assembly.make_present(files)
    except (TransferIncomplete, IntegrityError) as error:
        listener(Notice(f"{stated.ref} by the manifest of another machine: {error.message}"))
        return None
    if not _missing(stated, context):
        if catalog.is_private(manifest.id):
            for file in stated.walk():
                catalog.mark_private(file.key)  # as if the drawing had taken the credentials
        return report
    listener(Notice(f"{stated.ref}: the manifest of another machine is of other files than upstream states"))
    if not was_here:
        forget(context.store, manifest)
    return None


def _sum(brought: Report, drawn: Report) -> Report:
    """What both took; the second found everything here."""
    return replace(
        brought,
        total_bytes=drawn.total_bytes,
        reused_bytes=brought.reused_bytes + drawn.reused_bytes,
        fetched_bytes=brought.fetched_bytes + drawn.fetched_bytes,
        wasted_bytes=brought.wasted_bytes + drawn.wasted_bytes,
        elapsed_s=brought.elapsed_s + drawn.elapsed_s,
    )
