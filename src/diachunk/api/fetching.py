"""fetch and plan: a checkpoint onto this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.targets import By, resolve
from diachunk.errors import UsageError
from diachunk.manifest import Manifest
from diachunk.store.blobs import Presence
from diachunk.transfer.assemble import Report, wanted
from diachunk.transfer.neighbours import gone_again
from diachunk.transfer.plan import Plan, plan_components
from diachunk.transfer.progress import Listener, silent

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
    to: str | os.PathLike[str] | None = None,
    force: bool = False,
    max_down_bps: int | None = None,
    patience_s: float | None = None,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
) -> Snapshot:
    """Makes a checkpoint present, verified and durable. Call it again after anything: it resumes.

    Args:
        target: NAME[@REV], an id or a unique prefix of 8 or more, a manifest file, or its URL; or
            what `plan` said of one, which is then not looked up again.
        origins: URL prefixes, templates or directories, asked besides the manifest's own.
        components: only these; all by default.
        to: put the files into this directory instead of the store.
        force: with `to`, replace files there that differ and that diachunk did not put there.
        max_down_bps: cap on the rate, in bytes a second over all sources.
        patience_s: give up this long after the last verified chunk, once no source is usable.
        progress: called on this thread with typed events; their `bytes` are deltas that add up to
            `plan(...).total_bytes`.
        home: the store, in place of the configured one.

    Raises:
        UsageError, ManifestError, TransferIncomplete, StoreError, TrustError, Interrupted: see errors.py.
    """
    context = Context.make(home).with_patience(patience_s)
    if isinstance(target, Plan):
        manifest, by_name, url = target.manifest, target.by_name, target.url
    else:
        resolved = resolve(os.fspath(target), context)
        manifest, by_name, url = resolved.manifest, resolved.by is By.NAME, resolved.url
    chosen = _chosen(manifest, components)
    context.store.catalog.add(manifest)
    destination = context.destination(to, force=force)
    assembly = context.assembly(manifest, destination, origins, max_down_bps, progress, manifest_url=url)
    files = wanted(manifest, chosen, merged=destination.merges_equal_files)
    for _ in range(_FINAL_CHECKS):
        report = assembly.make_present(files)
        with context.store.layout.guard(sweeping=False):
            # Once more: a `gc` or `rm` meanwhile may have taken the manifest, and then the next the files.
            context.store.catalog.add(manifest)
            directory = _settle(context, manifest, chosen, to, by_name=by_name)
            if all(destination.find(facts).presence is Presence.PROVEN for facts in files):
                return Snapshot(directory, manifest, report)
        time.sleep(0.1)
    raise gone_again()


def plan(
    target: str | os.PathLike[str],
    *,
    origins: Iterable[str] = (),
    components: Iterable[str] = (),
    to: str | os.PathLike[str] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Plan:
    """What `fetch` would do: bytes to fetch and to reuse, disk. Reads no data and asks no origin.

    Raises:
        UsageError, ManifestError, StoreError: as fetch.
    """
    context = Context.make(home)
    resolved = resolve(os.fspath(target), context)
    manifest = resolved.manifest
    chosen = _chosen(manifest, components)
    destination = context.destination(to, force=True)
    files = wanted(manifest, chosen, merged=destination.merges_equal_files)
    parts, disk = plan_components(context.store, destination, files, context.lower_stores)
    directory = Path(to) if to is not None else context.store.layout.snapshot(manifest.id)
    return Plan(
        manifest,
        parts,
        disk,
        destination.free_bytes(),
        directory,
        tuple(dict.fromkeys((*origins, *context.config.origins, *manifest.origins))),
        resolved.by is By.NAME,
        resolved.url,
    )


def _chosen(manifest: Manifest, components: Iterable[str]) -> frozenset[str] | None:
    chosen = frozenset(components)
    known = [component.name for component in manifest.components]
    for name in sorted(chosen):
        if name not in known:
            names = ", ".join(each or '""' for each in known)
            raise UsageError(f"{manifest.ref} has no component {name!r:.96}", hint=f"it has: {names}")
    return chosen or None


def _settle(
    context: Context,
    manifest: Manifest,
    chosen: frozenset[str] | None,
    to: str | os.PathLike[str] | None,
    *,
    by_name: bool,
) -> Path:
    """Names what was fetched: the snapshot, the ref if it was asked for by name, else a pin against gc."""
    store = context.store
    directory = store.snapshots.build(manifest, chosen)
    if by_name:
        store.catalog.set_ref(manifest.name, manifest.revision, manifest.id)
    elif store.catalog.ref(manifest.name, manifest.revision) != manifest.id:
        store.catalog.pin(manifest.id)
    if store.catalog.ref(manifest.name, manifest.revision) == manifest.id:
        directory = store.snapshots.name(manifest.name, manifest.revision, manifest.id)
    store.catalog.touch(manifest.id)
    return Path(os.path.abspath(to)) if to is not None else directory
