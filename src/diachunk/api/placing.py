"""place: a checkpoint of this machine where other programs look for it; and taking it away again."""

from __future__ import annotations

import os
import posixpath
import shlex
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.parts import parts_called
from diachunk.api.several import several
from diachunk.api.targets import resolve
from diachunk.digest import Digest
from diachunk.errors import StoreError, UsageError
from diachunk.manifest import Manifest
from diachunk.places import Layout, Place, Pointer, Spot, cache_of
from diachunk.places.choose import Into, chosen_of, layouts_of, needs_of
from diachunk.places.links import LinkMode
from diachunk.places.proof import Held, find_held, missing_digests, prove
from diachunk.places.records import Records
from diachunk.places.undo import Undoer
from diachunk.places.workers import Teller
from diachunk.places.write import Telling, Writer, Written
from diachunk.transfer.progress import How, Listener, Progress, Status, silent


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """One file as programs see it now.

    Attributes:
        component, path: in the manifest; `size`: bytes, of the file itself also where this is a link to it.
        where: the absolute path under which programs find it.
        how: "reflink", "hardlink", "symlink", "copy", "there already"; of a dry run "to place" and the like.
    """

    component: str
    path: str
    size: int
    where: Path
    how: str


@dataclass(frozen=True, slots=True)
class PlacedIn:
    """One component in one place.

    Attributes:
        kind: "hub", "descript", "dia", "directory" or a plug-in's; `root`: that place's directory, above all this.
        shown: what programs are given: directory or file; `use`: what makes them find it, or ""; `files`: each once.
    """

    kind: str
    root: Path
    component: str
    shown: Path
    use: str
    files: tuple[PlacedFile, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """What placing (or undoing it) did.

    Attributes:
        notices: what a person should know: a ref that moved, a link that was replaced, a copy for want of links.
        removed: of an undo, what was taken away; `left`: what stays, and why.
    """

    manifest: Manifest
    places: tuple[PlacedIn, ...] = ()
    notices: tuple[str, ...] = ()
    removed: tuple[Path, ...] = ()
    left: tuple[tuple[Path, str], ...] = ()

    @property
    def files(self) -> tuple[PlacedFile, ...]:
        return tuple(file for place in self.places for file in place.files)


def _resolved(target: str, context: Context, components: Sequence[str]) -> Manifest:
    try:
        return resolve(target, context, local=True, components=components).manifest
    except UsageError as error:
        if "was not fetched here yet" not in error.message:
            raise
        words = [word for each in components for word in ("--component", each)]
        hint = shlex.join(("diachunk", "fetch", target, *words, "--place"))
        raise UsageError(error.message, hint=hint) from error


def place(
    target: Into | Manifest,
    *,
    into: Into | Iterable[Into] = (),
    components: str | Iterable[str] = (),
    link_mode: str = "auto",
    undo: bool = False,
    force: bool = False,
    dry_run: bool = False,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
) -> Placed:
    """Shows a checkpoint that is complete here to programs that have caches of their own. Idempotent.

    Args:
        target: as for fetch, or a manifest.
        into: "hub", "descript", "dia", or directories; by default what the manifest names.
        components: only these; all by default.
        link_mode: "auto", "reflink", "hardlink", "symlink" or "copy". Auto takes the first that works.
        undo: take away what was placed, as far as it is still that.
        force: move what is in the way aside, in place of giving up.
        dry_run: only look, read no file.
        progress: told the bytes that have to be read, to prove or to copy them (Status), then what was read (HASHED).
        home: the store, in place of the configured one.

    Raises:
        UsageError: no such target, component or kind, or nothing says where to place it.
        StoreError: a file is not complete here, something is in the way, or the disk refused.
        IntegrityError: bytes are not what the manifest says of them.
    """
    context = Context.make(home)
    into = several(into)
    components = several(components)
    if isinstance(target, Manifest):
        manifest = target
    else:
        manifest = _resolved(os.fspath(target), context, components)
    if undo:
        return undo_manifest(context, manifest, into, components=components)
    return place_manifest(
        context,
        manifest,
        into,
        components=components,
        link_mode=link_mode,
        force=force,
        dry_run=dry_run,
        progress=progress,
    )


def place_manifest(
    context: Context,
    manifest: Manifest,
    into: Sequence[Into] = (),
    *,
    components: Iterable[str] = (),
    link_mode: str = "auto",
    force: bool = False,
    dry_run: bool = False,
    progress: Listener = silent,
    environment: Mapping[str, str] = os.environ,
) -> Placed:
    """As `place`, for a manifest that was found already."""
    mode, components = _mode(link_mode), tuple(components)
    chosen = chosen_of(manifest, components)
    wanted = layouts_of(manifest, chosen, into, environment, strict=bool(components))
    if not dry_run:
        context.store.catalog.add(manifest)
    held = _held(context, manifest, wanted, progress, read=not dry_run)
    telling = Telling(lambda size: progress(_to_read(size)), _teller(progress))
    writers = [
        Writer(context.store, manifest.id, where, layout, held, mode=mode, force=force, telling=telling)
        for where, layout in wanted
    ]
    if dry_run:
        written = [writer.look() for writer in writers]
    else:
        with Records(context.store.layout).placing(lambda: _clean(writers)):
            written = [writer.write() for writer in writers]
        context.store.catalog.touch(manifest.id)
    places = [_placed_in(*pair, each) for pair, each in zip(wanted, written, strict=True)]
    notices = dict.fromkeys(text for each in written for text in each.notices)
    return Placed(manifest, tuple(places), tuple(notices))


def undo_manifest(
    context: Context,
    manifest: Manifest,
    into: Sequence[Into] = (),
    *,
    components: Iterable[str] = (),
    environment: Mapping[str, str] = os.environ,
) -> Placed:
    """Takes away what was placed of a checkpoint: everywhere, or in some places; all of it, or some components.

    Raises:
        UsageError: nothing of it was placed there.
        StoreError: the disk refused.
    """
    records = Records(context.store.layout)
    roots = {cache_of(each, environment).root for each in into}
    chosen = {each.name for each in chosen_of(manifest, components)}
    known = records.get(manifest.id)
    placements = [each for each in known if not roots or each.root in roots]
    if not known and manifest.id in records.ids():
        damaged = f"{records.path(manifest.id)} cannot be read: what was placed stays where it is"
        return Placed(manifest, notices=(damaged,))
    if not placements:
        shown = [
            f"{each.name}@{each.revision}"
            for each in parts_called(manifest.ref, context)
            if records.get(each.id)
        ]
        hint = shlex.join(("diachunk", "place", shown[0], "--undo")) if shown else ""
        raise UsageError(f"nothing of {manifest.ref} was placed{' there' if roots else ''}", hint=hint)
    undoers = [Undoer(context.store, manifest.id, each) for each in placements]
    with records.placing(lambda: _clean(undoers)):
        done = [undoer.undo(lambda put: put.component in chosen) for undoer in undoers]
    return Placed(
        manifest,
        removed=tuple(path for each in done for path in each.removed),
        left=tuple(left for each in done for left in each.left),
    )


def _mode(text: str) -> LinkMode:
    try:
        return LinkMode(text)
    except ValueError as error:
        known = ", ".join(each.value for each in LinkMode)
        raise UsageError(f"{text!r:.40} is no link mode", hint=f"known: {known}") from error


def _held(
    context: Context,
    manifest: Manifest,
    wanted: Sequence[tuple[Place, Layout]],
    progress: Listener,
    *,
    read: bool,
) -> dict[Digest, Held]:
    """The proven file of each digest. What is to be named by another digest is read, once, where nobody has yet."""
    needs = needs_of(wanted)
    found = [find_held(context.store, need) for need in needs]
    absent = [need for need, each in zip(needs, found, strict=True) if each is None]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        known = context.store.catalog.ref(manifest.name, manifest.revision) == manifest.id
        raise StoreError(
            f"{absent[0].label}{more} of {manifest.ref}: not complete here, or not verified",
            hint=f"`diachunk fetch {manifest.ref if known else manifest.hex_id[:16]}`, then place again",
        )
    held = [each for each in found if each is not None]
    if read:
        to_read = missing_digests(needs, held)
        if to_read:
            progress(_to_read(sum(needs[number].file.size for number in to_read)))
        held = prove(context.store, needs, held, _teller(progress))
    return {each.file.blake3: each for each in held}


def _clean(workers: Iterable[Writer | Undoer]) -> None:
    for worker in workers:
        worker.clean()


def _to_read(size_bytes: int) -> Status:
    return Status(size_bytes, 0.0, None, "", ())


def _teller(progress: Listener) -> Teller:
    """Turns what is read into events, one at a time."""
    lock = threading.Lock()

    def tell(component: str, size_bytes: int) -> None:
        with lock:
            progress(Progress(size_bytes, component, How.HASHED))

    return tell


def _placed_in(where: Place, layout: Layout, written: Written) -> PlacedIn:
    def how_of(path: str) -> str:
        how, verdict = written.hows.get(path), written.verdicts.get(path)
        return how.value if how is not None else verdict.value if verdict is not None else ""

    # Where there are pointers, programs see those; the rest is under the name that it was put.
    pointed = {
        posixpath.normpath(posixpath.join(posixpath.dirname(each.where), each.target))
        for each in layout.pointers
    }
    files: list[PlacedFile] = []
    named: list[Spot | Pointer] = [
        *layout.pointers,
        *(spot for spot in layout.spots if spot.where not in pointed),
    ]
    for each in named:
        put = each.where
        if isinstance(each, Pointer):
            put = posixpath.normpath(posixpath.join(posixpath.dirname(put), each.target))
        path = where.root / each.where
        files.append(PlacedFile(layout.component, each.file.path, each.file.size, path, how_of(put)))
    shown = Path(os.path.normpath(where.root / layout.shown))
    return PlacedIn(where.kind, where.root, layout.component, shown, layout.use, tuple(files))
