"""fetch: a checkpoint onto this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from diachunk.api.asking import offers_of_stated
from diachunk.api.context import Context
from diachunk.api.foreign.claims import adopt_known
from diachunk.api.parts import check_pin, choose, keep_closed, refuse_unknown
from diachunk.api.recipes import Pick, recipe_key, remember
from diachunk.api.several import several
from diachunk.api.sharing import Sharing, Sociable, sharing_or_new
from diachunk.api.targets import By, Resolved, Upstream, look_up
from diachunk.api.trust.stated import draw_in_company
from diachunk.config import Config
from diachunk.errors import TransferIncomplete, UsageError
from diachunk.manifest import Manifest
from diachunk.manifest.recipe import Recipe
from diachunk.manifest.stated import StatedCheckpoint
from diachunk.schedule.work import files_of
from diachunk.store.blobs import Presence
from diachunk.transfer.assemble import First, Report
from diachunk.transfer.neighbours import gone_again
from diachunk.transfer.plan import Plan
from diachunk.transfer.progress import Listener, silent, words_only

_FINAL_CHECKS = 3


@dataclass(frozen=True, slots=True, repr=False)
class Snapshot(os.PathLike[str]):
    """A complete checkpoint on this machine; usable wherever a directory path is.

    Attributes:
        directory: holds `<component>/<path>` (or `<path>` for the unnamed component).
        report: what it took, in bytes and seconds.
    """

    directory: Path
    manifest: Manifest
    report: Report

    def __fspath__(self) -> str:
        return str(self.directory)

    def __str__(self) -> str:
        return str(self.directory)

    def __repr__(self) -> str:
        return f"<Snapshot {self.manifest.ref} {self.manifest.hex_id[:16]} at {self.directory}>"

    def path(self, name: str = "") -> Path:
        """The path of one file or component: `path("vocoder/model.safetensors")`.

        Raises:
            UsageError: the checkpoint has nothing of that name here.
        """
        found = self.directory / name
        if ".." in Path(name).parts or not found.exists():
            raise UsageError(f"{self.manifest.ref} has no {name!r} here")
        return found


def fetch(
    target: str | os.PathLike[str] | Plan,
    *,
    origins: Iterable[str] = (),
    components: Iterable[str] = (),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    to: str | os.PathLike[str] | None = None,
    force: bool = False,
    max_down_bps: int | None = None,
    patience_s: float | None = None,
    names: bool = False,
    first: First | None = None,
    peers: Iterable[str] = (),
    discover: bool = False,
    share: bool = False,
    max_up_bps: int | None = None,
    linger_s: float | None = None,
    sharing: Sharing | None = None,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
    settings: Config | None = None,
) -> Snapshot:
    """Makes a checkpoint present, verified and durable. Call it again after anything: it resumes.

    Args:
        target: NAME[@REV], an id or a unique prefix of 8 or more, a manifest or recipe file, a manifest's URL,
            `hub:ORG/REPO[@REV]`; or what `plan` said of one, which is then not looked up again.
        origins: URL prefixes, templates or directories, asked besides the manifest's own.
        components: only these; all by default. Of a recipe that was not fetched here yet they become a checkpoint of
            their own (docs/recipes.md).
        include, exclude: of `hub:ORG/REPO`, which files: names or patterns such as "*.json"; all by default.
        to: put the files into this directory instead of the store.
        force: with `to`, replace files there that differ and that diachunk did not put there.
        max_down_bps: cap on the rate, in bytes a second over all sources.
        patience_s: give up this long after the last verified chunk, once no source is usable.
        names: also compute the SHA-256 and git's id of what is fetched, on the way, so that `place` has nothing to
            read afterwards.
        first: given the work list (schedule/work.py), says which of its items to fetch before all others: what
            somebody who reads the files meanwhile cannot do without. Its other argument does the same later.
        peers: machines to take from as well: HOST[:PORT], or dns:NAME[:PORT] for all addresses of a name.
        discover: also look for machines on this network (mDNS).
        share: give others what is verified while it runs, and then stay for those that are not done yet.
        max_up_bps: cap on what is given, in bytes a second.
        linger_s: how long to stay at most; by default as configured (`limits.linger_s`), 0 for not at all.
        sharing: in place of these five: a node of the caller's own, which outlives this call.
        progress: called on this thread with typed events; their `bytes` are deltas that add up to
            `plan(...).total_bytes`.
        home: the store, in place of the configured one.
        settings: in place of what the configuration files and the environment say.

    Raises:
        UsageError, ManifestError, TransferIncomplete, IntegrityError, StoreError, TrustError, Interrupted: see
            errors.py.
    """
    context = Context.make(home, settings).with_patience(patience_s)
    how = Sociable(several(peers), share, discover, max_up_bps, linger_s)
    with sharing_or_new(sharing, context.config, how, progress) as company:
        context = context.with_sharing(company)
        progress = progress if company is None else company.hearing(progress)
        found = (
            target
            if isinstance(target, Plan)
            else look_up(os.fspath(target), context, pick=Pick.of(include, exclude))
        )
        order = _Order(
            found,
            frozenset(several(components)),
            several(origins),
            to,
            force,
            max_down_bps,
            names,
            first,
        )
        try:
            snapshot = _carry_out(order, context, progress)
        except TransferIncomplete as error:
            troubles = company.troubles() if company is not None else []
            if not troubles or all(each.partition(": ")[0] in error.message for each in troubles):
                raise
            raise TransferIncomplete(f"{error.message}; {'; '.join(troubles)}", hint=error.hint) from error
        if company is not None and sharing is None:
            company.linger()
        return snapshot


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be fetched, and how: arguments of `fetch`."""

    found: Plan | Resolved | Upstream
    components: frozenset[str]
    origins: tuple[str, ...]
    to: str | os.PathLike[str] | None
    force: bool
    max_down_bps: int | None
    names: bool
    first: First | None

    @property
    def moves_name(self) -> bool:
        return not isinstance(self.found, Upstream) and self.found.moves_name

    @property
    def by_name(self) -> bool:
        return self.found.by_name if isinstance(self.found, Plan) else self.found.by is By.NAME


def _carry_out(order: _Order, context: Context, progress: Listener) -> Snapshot:
    manifest, drawing = _manifest(order, context, progress)
    chosen = chosen_of(manifest, order.components)
    context.store.catalog.add(manifest)
    destination = context.destination(order.to, force=order.force)
    assembly = context.assembly(
        manifest,
        destination,
        order.origins,
        order.max_down_bps,
        progress if drawing is None else words_only(progress),
        manifest_url="" if isinstance(order.found, Upstream) else order.found.url,
        names=order.names,
        first=order.first,
    )
    files = files_of(manifest, chosen, merged=destination.merges_equal_files)
    if drawing is None:
        adopt_known(context, files, progress)
    for _ in range(_FINAL_CHECKS):
        report = assembly.make_present(files)
        with context.store.layout.guard(sweeping=False):
            # Once more: a `gc` or `rm` meanwhile may have taken the manifest, and then the next the files.
            context.store.catalog.add(manifest)
            directory = _settle(context, manifest, chosen, order)
            if all(destination.find(facts).presence is Presence.PROVEN for facts in files):
                return Snapshot(directory, manifest, _in_all(report, drawing))
        time.sleep(0.1)
    raise gone_again()


def _manifest(order: _Order, context: Context, progress: Listener) -> tuple[Manifest, Report | None]:
    """The manifest, and what it took to draw it from a recipe, if that was necessary."""
    found = order.found
    if not isinstance(found, Upstream) and found.manifest is not None:
        if isinstance(found, Plan) and found.recipe is not None and found.recipe.whole is not None:
            context.store.catalog.set_drawn(recipe_key(found.recipe), found.manifest.id)
        return found.manifest, None
    recipe = found.recipe
    assert recipe is not None
    known: StatedCheckpoint | Manifest | None = found.stated if isinstance(found, Plan) else None
    if known is None:
        choice = choose(recipe, order.components, context, progress)
        recipe, known = choice.recipe, choice.known
    if isinstance(known, Manifest):
        return known, None
    return _drawn(recipe, known, order, context, progress)


def _drawn(
    recipe: Recipe, stated: StatedCheckpoint, order: _Order, context: Context, progress: Listener
) -> tuple[Manifest, Report]:
    keep_closed(recipe, stated, context)
    manifest, report = draw_in_company(
        stated,
        lambda: offers_of_stated(stated, recipe, context),
        context,
        origins=order.origins,
        max_down_bps=order.max_down_bps,
        listener=progress,
    )
    check_pin(manifest, context)
    remember(recipe, stated, manifest, context)
    return manifest, report


def _in_all(report: Report, drawing: Report | None) -> Report:
    if drawing is None:
        return report
    return replace(
        drawing,
        reused_bytes=drawing.reused_bytes + report.reused_bytes,
        elapsed_s=drawing.elapsed_s + report.elapsed_s,
        repaired=report.repaired,
    )


def chosen_of(manifest: Manifest, components: Iterable[str]) -> frozenset[str] | None:
    chosen = frozenset(several(components))
    refuse_unknown(manifest.ref, [component.name for component in manifest.components], chosen)
    return chosen or None


def _settle(
    context: Context,
    manifest: Manifest,
    chosen: frozenset[str] | None,
    order: _Order,
) -> Path:
    """Names what was fetched: the snapshot, the ref if it was asked for by name, else a pin against gc."""
    store = context.store
    directory = store.snapshots.build(manifest, chosen)
    if order.by_name:
        store.catalog.set_ref(manifest.name, manifest.revision, manifest.id, force=order.moves_name)
    elif store.catalog.ref(manifest.name, manifest.revision) != manifest.id:
        store.catalog.pin(manifest.id)
    if store.catalog.ref(manifest.name, manifest.revision) == manifest.id:
        directory = store.snapshots.name(manifest.name, manifest.revision, manifest.id)
    store.catalog.touch(manifest.id)
    return Path(os.path.abspath(order.to)) if order.to is not None else directory
