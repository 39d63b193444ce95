"""verify: is every byte still what it was? And, when asked, what is not gets fetched again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.several import Several, several
from diachunk.api.sharing import Sociable, sharing_or_new
from diachunk.api.targets import resolve
from diachunk.api.verified import Damage, FileReport, State, VerifyReport
from diachunk.bitmap import Bitmap
from diachunk.digest import Digest
from diachunk.errors import DiachunkError, StoreError, UsageError, os_errors
from diachunk.formats.base import FileAccess, TensorSpan
from diachunk.formats.registry import find_tensors
from diachunk.manifest import ChunkList, Manifest
from diachunk.schedule.work import BlobFacts, files_of
from diachunk.store.blobs import Presence
from diachunk.store.files import regular
from diachunk.transfer.assemble import Report
from diachunk.transfer.check import Checked, check_files
from diachunk.transfer.destination import Destination
from diachunk.transfer.progress import Listener, silent

__all__ = ["Damage", "FileReport", "State", "VerifyReport", "verify"]

_TENSORS_NAMED_MAX = 8


def verify(
    targets: Several = (),
    *,
    directory: str | os.PathLike[str] | None = None,
    repair: bool = False,
    force: bool = False,
    subset: tuple[int, int] | None = None,
    origins: Iterable[str] = (),
    max_down_bps: int | None = None,
    peers: Iterable[str] = (),
    discover: bool = False,
    progress: Listener = silent,
    home: str | os.PathLike[str] | None = None,
) -> VerifyReport:
    """Reads files and compares every chunk with its digest.

    Args:
        targets: checkpoints; without any, everything that this store holds.
        directory: look for the (one) target's files there, as `fetch --to` lays them out.
        repair: fetch what is wrong. A blob of the store is mended in place, the user's own files never:
            the store then gets its own copy.
        force: with `directory` and `repair`, also replace files that diachunk did not put there.
        peers, discover: as of `fetch`: other machines to mend from.
        subset: (k, n): only the k-th of n parts of all chunks, for scheduled scrubs; 1 <= k <= n.

    Raises:
        UsageError, ManifestError, StoreError, Interrupted; with `repair` also TransferIncomplete.
    """
    if subset is not None and not 1 <= subset[0] <= subset[1]:
        raise UsageError(f"{subset[0]}/{subset[1]}: there is no such part", hint="such as 1/30")
    context = Context.make(home)
    manifests, explicit = _manifests(several(targets), context)
    if directory is not None and len(manifests) != 1:
        raise UsageError("to verify a directory, name the one checkpoint that it should hold")
    if directory is not None and not Path(directory).is_dir():
        raise UsageError(f"{os.fspath(directory)}: no such directory")
    walk = _Walk(context, subset, progress)
    for manifest in manifests:
        walk.check(manifest, context.destination(directory, force=force), named=explicit)
    if not explicit:
        walk.note_broken_manifests()
    if not repair:
        return walk.report()
    how = Sociable(several(peers), discover=discover)
    with sharing_or_new(None, context.config, how, progress) as company:
        return _repair(walk, context.with_sharing(company), several(origins), max_down_bps, progress)


def _manifests(targets: Sequence[str], context: Context) -> tuple[list[Manifest], bool]:
    if targets:
        return [resolve(text, context, local=True).manifest for text in targets], True
    return list(context.store.catalog.manifests()), False


@dataclass(slots=True)
class _Finding:
    manifest: Manifest
    destination: Destination
    facts: BlobFacts
    checked: Checked | None
    report: FileReport


class _Walk:
    """Collects findings over several checkpoints; a blob that several share is read once."""

    def __init__(self, context: Context, subset: tuple[int, int] | None, listener: Listener) -> None:
        self.findings: list[_Finding] = []
        self.checked_bytes = 0
        self.elapsed_s = 0.0
        self._broken: list[FileReport] = []
        self._context = context
        self._subset = subset
        self._listener = listener
        self._seen: dict[tuple[Path, Digest], Checked] = {}

    def check(self, manifest: Manifest, destination: Destination, *, named: bool) -> None:
        started_at = time.monotonic()
        present: list[tuple[BlobFacts, Path]] = []
        absent: list[BlobFacts] = []
        files = files_of(manifest, None, merged=False)
        for facts in files:
            path = self._locate(facts, destination, manifest)
            if path is not None:
                present.append((facts, path))
            elif named or self._was_here(manifest, facts):
                absent.append(facts)
        fresh = {(path, facts.chunks.id): (facts, path) for facts, path in present}
        todo = [pair for key, pair in fresh.items() if key not in self._seen]
        leave_out = [self._outside(facts.chunks) for facts, _ in todo] if self._subset else None
        checks = check_files(todo, self._context.config.limits, leave_out=leave_out, listener=self._listener)
        for checked in checks:
            self._seen[checked.path, checked.facts.chunks.id] = checked
            self.checked_bytes += sum(checked.facts.chunks.sizes[index] for index in checked.good)
        for facts, path in present:
            self._note(manifest, destination, facts, self._seen[path, facts.chunks.id])
        for facts in absent:
            state = State.UNFINISHED if regular(destination.partial(facts)) else State.MISSING
            self._add(manifest, destination, facts, None, state)
        self.elapsed_s += time.monotonic() - started_at

    def _locate(self, facts: BlobFacts, destination: Destination, manifest: Manifest) -> Path | None:
        """The file to read: also one whose record no longer fits (an adopted file that was changed)."""
        path = destination.locate(facts)
        if path is not None or not destination.merges_equal_files:
            return path
        link = self._context.store.layout.snapshot(manifest.id) / facts.component / facts.path
        with os_errors("look at", link):
            return link.resolve() if link.is_file() else None

    def _was_here(self, manifest: Manifest, facts: BlobFacts) -> bool:
        link = self._context.store.layout.snapshot(manifest.id) / facts.component / facts.path
        with os_errors("look at", link):
            return link.is_symlink()

    def _leads_astray(self, manifest: Manifest, facts: BlobFacts) -> bool:
        """Whether the link that programs follow leads to another file than one known to hold these bytes."""
        link = self._context.store.layout.snapshot(manifest.id) / facts.component / facts.path
        with os_errors("look at", link):
            if not link.is_symlink():
                return False
            target = link.resolve()
        blobs = self._context.store.blobs
        known = [
            file.path for file in blobs.adopted.get(facts.digest) if file.unchanged() and not file.spoiled
        ]
        own = self._context.store.layout.blob(facts.digest)
        return target not in [each.resolve() for each in (own, *known)]

    def _outside(self, chunks: ChunkList) -> Bitmap:
        part, parts = self._subset or (1, 1)
        numbers = (int.from_bytes(chunks.digest(index)[:8], "big") for index in range(len(chunks)))
        return Bitmap(
            len(chunks), (index for index, number in enumerate(numbers) if number % parts != part - 1)
        )

    def _note(self, manifest: Manifest, destination: Destination, facts: BlobFacts, checked: Checked) -> None:
        if checked.right:
            if not self._subset:
                self._prove(destination, facts, checked)
            astray = destination.merges_equal_files and self._leads_astray(manifest, facts)
            self._add(manifest, destination, facts, checked, State.MISLINKED if astray else State.OK)
            return
        actual = checked.actual_size or 0
        state = State.DAMAGED
        if actual != facts.size:
            state = State.CUT_OFF if actual < facts.size else State.TOO_LONG
        self._add(manifest, destination, facts, checked, state)

    def _prove(self, destination: Destination, facts: BlobFacts, checked: Checked) -> None:
        try:
            holding = destination.find(facts)
        except StoreError:
            return  # right, but read through a link of the user's: no file of ours to note it for
        unproven = holding.path == checked.path and holding.presence is not Presence.PROVEN
        if unproven and checked.identity is not None:
            destination.prove(facts, holding, checked.identity)

    def _add(
        self,
        manifest: Manifest,
        destination: Destination,
        facts: BlobFacts,
        checked: Checked | None,
        state: State,
    ) -> None:
        report = FileReport(
            manifest.ref,
            facts.component,
            facts.path,
            facts.size,
            checked.path if checked else None,
            state,
            damage_of(checked) if checked and not checked.right else (),
            why=checked.unreadable if checked else "",
            unreadable=bool(checked and checked.unreadable),
        )
        self.findings.append(_Finding(manifest, destination, facts, checked, report))

    def note_broken_manifests(self) -> None:
        for path, why in self._context.store.catalog.broken():
            self._broken.append(FileReport(path.stem[:16], "", path.name, 0, path, State.DAMAGED, why=why))

    def report(self, repair: Report | None = None) -> VerifyReport:
        return VerifyReport(
            (*(each.report for each in self.findings), *self._broken),
            self.checked_bytes,
            self.elapsed_s,
            repair,
        )


def damage_of(checked: Checked) -> tuple[Damage, ...]:
    """Names what the bad chunks hold, as far as the file's header can still be read."""
    chunks = checked.facts.chunks
    spans = _spans(checked.path, checked.facts)
    found = []
    for index in checked.bad:
        start, end = chunks.offsets[index], chunks.offsets[index + 1]
        touched = [span.name for span in spans if span.offset < end and start < span.end]
        found.append(
            Damage(index, start, end - start, chunks.digest(index), tuple(touched[:_TENSORS_NAMED_MAX]))
        )
    return tuple(found)


def _spans(path: Path, facts: BlobFacts) -> tuple[TensorSpan, ...]:
    try:
        with FileAccess(path, facts.size) as file:
            return find_tensors(facts.path, file).spans
    except OSError:
        return ()


def _repair(
    walk: _Walk, context: Context, origins: tuple[str, ...], max_down_bps: int | None, progress: Listener
) -> VerifyReport:
    """Puts right what is wrong, checkpoint by checkpoint, through the one engine."""
    total = Report()
    groups: dict[Digest, list[_Finding]] = {}
    for finding in walk.findings:
        if finding.report.state is not State.OK:
            groups.setdefault(finding.manifest.id, []).append(finding)
    failed: DiachunkError | None = None
    for findings in groups.values():
        manifest, destination = findings[0].manifest, findings[0].destination
        assembly = context.assembly(manifest, destination, origins, max_down_bps, progress)
        unique = {
            each.facts.digest if destination.merges_equal_files else id(each): each for each in findings
        }
        try:
            done = assembly.make_present(
                [each.facts for each in unique.values()],
                [each.checked for each in unique.values() if each.checked and not each.checked.right],
            )
        except (StoreError, UsageError):
            raise
        except DiachunkError as error:
            failed = failed or error
            for each in findings:
                why = "; ".join(filter(None, (each.report.why, error.message)))
                each.report = replace(each.report, why=why)
            continue
        context.store.snapshots.build(manifest)
        total.fetched_bytes += done.fetched_bytes
        total.reused_bytes += done.reused_bytes
        total.elapsed_s += done.elapsed_s
        for each in findings:
            each.report = replace(each.report, repaired=True)
    return replace(walk.report(total), repair_error=failed)
