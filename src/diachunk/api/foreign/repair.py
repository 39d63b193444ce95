"""Repair of other programs' caches: the right bytes are put in place of the wrong ones, in one rename each.

Nothing is written through a link: a blob that is a link into a store which others share is replaced itself, and what it
led to is told and left alone. Who has the old file open keeps it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diachunk.api.context import Context
from diachunk.api.foreign.claims import adopt_known
from diachunk.api.foreign.known_files import KnownFile
from diachunk.api.foreign.report import CacheState
from diachunk.errors import DiachunkError, IntegrityError, Interrupted, StoreError, UsageError
from diachunk.places.links import CannotLink, Made, make
from diachunk.places.proof import Held, Need, find_held
from diachunk.places.records import How, Records
from diachunk.places.tree import Tree
from diachunk.store.adopted import AdoptedFile
from diachunk.store.files import Files
from diachunk.store.store import Store
from diachunk.transfer.progress import How as Moved
from diachunk.transfer.progress import Listener, Progress

if TYPE_CHECKING:
    from diachunk.api.foreign.inspection import Finding

_WAYS = (How.REFLINK, How.HARDLINK, How.COPY)
"""No symbolic links: another program's cache should not need this store."""


class Repair:
    """Mends what an inspection found.

    Attributes:
        fetched_bytes, reused_bytes: what it took.
        error: the first thing that kept a file from being repaired, or None.
    """

    def __init__(
        self,
        context: Context,
        origins: Sequence[str],
        max_down_bps: int | None,
        listener: Listener,
    ) -> None:
        self.fetched_bytes = 0
        self.reused_bytes = 0
        self.error: DiachunkError | None = None
        self._context = context
        self._origins = origins
        self._max_down_bps = max_down_bps
        self._listener = listener

    def mend(self, findings: Sequence[Finding]) -> None:
        """Replaces what is wrong, as far as the right bytes can be had. What could not be stays in its report.

        Raises:
            UsageError: an origin is no URL.
            Interrupted: Ctrl-C.
        """
        with Records(self._context.store.layout).placing(lambda: self._sweep(findings)):
            self._mend(findings)

    def _sweep(self, findings: Sequence[Finding]) -> None:
        """Takes away what repairs that were killed left beside the files that were looked at now."""
        heads = {
            (each.place.root, each.report.path.parent) for each in findings if each.report.path is not None
        }
        for root, directory in heads:
            if directory.is_relative_to(root):
                tree = Tree(root, Files(), self._context.store.layout.store_id)
                tree.sweep(directory.relative_to(root).as_posix().removeprefix("."))

    def _mend(self, findings: Sequence[Finding]) -> None:
        wrong = [each for each in findings if each.report.state.wrong and self._mendable(each)]
        for path in dict.fromkeys(each.mends for each in wrong):
            reason = _why_not_writable(path) if path else None
            for each in (each for each in wrong if reason and each.mends == path):
                self._fail(each, reason)
        wrong = [each for each in wrong if _why_not_writable(each.mends) is None]
        if wrong:
            self._listener(
                Progress(0, "", Moved.REUSED)
            )  # from here on it is no longer the disk that is waited for
        groups: dict[bytes, list[Finding]] = {}
        for each in wrong:
            if (known := each.by_chunks) is not None and known.manifest is not None:
                groups.setdefault(known.manifest.id, []).append(each)
        for group in groups.values():
            self._by_manifest(group)
        self._by_digest([each for each in wrong if not each.by_chunks])

    def _mendable(self, finding: Finding) -> bool:
        """Whether it is known what should be there, and whether we may say that it is wrong."""
        if finding.mends is None or not (finding.known or finding.claim):
            return False
        readable = finding.report.state is not CacheState.UNREADABLE
        return readable or os.strerror(errno.EIO) in finding.report.why

    def _fail(self, finding: Finding, error: DiachunkError | None) -> None:
        if error is not None:
            why = "; ".join(filter(None, (finding.report.why, error.message)))
            finding.report = replace(finding.report, why=why)
            self.error = self.error or error

    # --- what a manifest knows -----------------------------------------------------------------------------

    def _by_manifest(self, findings: Sequence[Finding]) -> None:
        """The one engine makes the files present in the store (or finds them elsewhere); then they are put there."""
        context, store = self._context, self._context.store
        known = {each.mends: _known(each) for each in findings}
        manifest = next(iter(known.values())).manifest
        assert manifest is not None
        facts = list({each.entry.blake3: each.facts for each in known.values()}.values())
        damaged = [each.checked for each in findings if each.checked and each.checked.identity]
        for checked in damaged:
            # Said before anybody looks around here: it is no candidate, only good for what is right in it.
            real = Path(os.path.realpath(checked.path))
            if checked.identity is not None and not real.is_relative_to(os.path.realpath(store.root)):
                spoiled = AdoptedFile(real, checked.identity, spoiled=True)
                store.blobs.adopted.put(checked.facts.digest, spoiled, durable=False)
        adopt_known(context, facts)
        failed: DiachunkError | None = None
        try:
            assembly = context.assembly(
                manifest,
                context.destination(None, force=False),
                self._origins,
                self._max_down_bps,
                self._listener,
            )
            done = assembly.make_present(facts, damaged)
            self.fetched_bytes += done.fetched_bytes
            self.reused_bytes += done.reused_bytes
        except (Interrupted, UsageError):
            raise
        except DiachunkError as error:
            failed = error
        for each in findings:
            need = Need(known[each.mends].component, known[each.mends].entry)
            self._put(each, find_held(store, need), failed)

    # --- what only a digest names --------------------------------------------------------------------------

    def _by_digest(self, findings: Sequence[Finding]) -> None:
        if not findings:
            return
        from diachunk.api.foreign.upstream import Upstream

        upstream = Upstream(self._context, self._origins, self._max_down_bps, self._listener)
        held = upstream.get(findings)
        self.fetched_bytes += upstream.fetched_bytes
        self.reused_bytes += upstream.reused_bytes
        for each in findings:
            if each.mends is not None:
                self._put(each, held.get(each.mends), upstream.errors.get(each.mends))
        upstream.forget()

    # --- into its place ------------------------------------------------------------------------------------

    def _put(self, finding: Finding, held: Held | None, failed: DiachunkError | None) -> None:
        if held is None or finding.mends is None:
            missing = IntegrityError(
                "no copy of it is known", hint="run it again where the Hub can be reached"
            )
            self._fail(finding, failed or missing)
            return

        def told(size_bytes: int) -> None:
            self._listener(Progress(size_bytes, "", Moved.REUSED))

        try:
            put_in_place(self._context.store, finding.place.root, finding.mends, held, told)
        except (StoreError, IntegrityError) as error:
            self._fail(finding, error)
            return
        why = finding.report.why
        shared = finding.report.shared
        if shared is not None and not shared.is_relative_to(os.path.realpath(self._context.store.root)):
            why = f"the link was replaced; {shared}, where it led, is damaged too and was left alone"
        finding.report = replace(finding.report, repaired=True, why=why)


def _known(finding: Finding) -> KnownFile:
    known = finding.by_chunks
    assert known is not None
    return known


def _why_not_writable(path: Path | None) -> StoreError | None:
    """Why nothing can be put there, seen before anything is fetched in vain."""
    if path is None or os.access(path.parent, os.W_OK | os.X_OK):
        return None
    what = "read-only" if _read_only(path.parent) else "not writable for you"
    return StoreError(
        f"{path.parent} is {what}: nothing was changed there", hint="run it as the owner of that cache"
    )


def _read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def put_in_place(store: Store, root: Path, path: Path, held: Held, copied: Callable[[int], None]) -> How:
    """Gives a proven file's bytes the name `path`, below `root`, over what has it; durably.

    Raises:
        StoreError: the directory refused, or a link stands on the way.
        IntegrityError: the bytes copied are not the file's.
    """
    where, files = path.relative_to(root).as_posix(), Files()
    tree = Tree(root, files, store.layout.store_id)
    with tree.trouble("write", where), tree.directory(posixpath.dirname(where)) as fd:
        for how in _WAYS:
            temporary = tree.temporary()
            try:
                made = make(held, fd, temporary, how, files, copied)
                with _recorded(store, root, where, made):
                    files.rename(Path(temporary), Path(path.name), dir_fd=fd)
            except CannotLink:
                continue
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=fd)
            files.flush_dir(fd)
            return how
    raise StoreError(f"cannot put a file at {path}")


@contextlib.contextmanager
def _recorded(store: Store, root: Path, where: str, made: Made) -> Iterator[None]:
    """What `place` put there stays diachunk's own, to be taken away again: its record is of the new file then."""
    records = Records(store.layout)
    ours = [
        (manifest_id, placement.kind, put)
        for manifest_id in records.ids()
        for placement in records.get(manifest_id)
        for put in placement.puts
        if placement.root == root and put.where == where and put.ours
    ]
    if not ours:
        yield
        return
    with records.alone():
        for manifest_id, kind, put in ours:
            renewed = replace(put, how=made.how, stamp=made.stamp, target=made.target)
            records.add(manifest_id, kind, root, [renewed])
        yield
