"""The right bytes for cached files that no manifest knows, by the digest that their own name (or a recipe) states.

First from elsewhere on this machine, then from where they came: the Hub's repository and commit, a recipe's URL. What
comes counts only once the whole file has that digest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diachunk.api.context import Context
from diachunk.api.drafting import Knowledge, open_stated
from diachunk.api.foreign.local_files import find_local
from diachunk.api.foreign.report import CacheState
from diachunk.chunking.hashes import Hashes
from diachunk.chunking.hashing import hash_one
from diachunk.errors import (
    DiachunkError,
    IntegrityError,
    Interrupted,
    StoreError,
    TransferIncomplete,
    UsageError,
)
from diachunk.manifest import FileEntry
from diachunk.manifest.recipe import HubUpstream
from diachunk.manifest.stated import StatedCheckpoint, StatedComponent, StatedFile
from diachunk.places import Wanted
from diachunk.places.hub_names import is_commit, repository_of
from diachunk.places.proof import Held
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.store.drafts import chunk_list, matches
from diachunk.store.stamps import Stamp
from diachunk.transfer.drafting import Drafting
from diachunk.transfer.progress import Listener

if TYPE_CHECKING:
    from diachunk.api.foreign.inspection import Finding


@dataclass(frozen=True, slots=True)
class _Lost:
    """One file to get: where it belongs, what it should be, and where that can be had."""

    mends: Path
    file: StatedFile
    source: StatedComponent | None
    damaged: Path | None


class Upstream:
    """Gets files. `errors` says of what could not be got why, by where it belongs."""

    def __init__(
        self, context: Context, origins: Sequence[str], max_down_bps: int | None, listener: Listener
    ) -> None:
        self.fetched_bytes = 0
        self.reused_bytes = 0
        self.errors: dict[Path, DiachunkError] = {}
        self._context = context
        self._origins = origins
        self._max_down_bps = max_down_bps
        self._listener = listener
        self._drafted: list[StatedFile] = []

    def get(self, findings: Sequence[Finding]) -> dict[Path, Held]:
        """Whatever of them can be had, by where it belongs, proven.

        Raises:
            UsageError: an origin is no URL.
            Interrupted: Ctrl-C.
        """
        lost = {each.mends: each for finding in findings if (each := self._lost(finding)) is not None}
        held = {each.mends: found for each in lost.values() if (found := self._here(each)) is not None}
        groups: dict[str, list[_Lost]] = {}
        for each in lost.values():
            if each.mends not in held and each.source is not None:
                groups.setdefault(each.source.name, []).append(each)
        for group in groups.values():
            held |= self._fetch(group)
        return held

    def forget(self) -> None:
        """They are where they belong: the store need not keep them."""
        for file in self._drafted:
            self._context.store.drafts.forget(file)

    # --- what is wanted ------------------------------------------------------------------------------------

    def _lost(self, finding: Finding) -> _Lost | None:
        known = next((each for each in finding.known if each.stated is not None), None)
        if finding.mends is None:
            return None
        damaged = finding.report.path if finding.report.state is CacheState.CUT_OFF else None
        if known is not None and known.stated is not None:
            name = known.checkpoint
            file = replace(known.stated, component=name)
            source = StatedComponent(name, known.upstream, (file,), known.mirrors)
            return _Lost(finding.mends, file, source, damaged)
        if finding.claim is None:
            return None
        digests = {finding.claim.algorithm: finding.claim.expected}
        repository, commit, path = _origin_of(finding)
        file = StatedFile(
            repository,
            path or finding.mends.name,
            finding.stated_bytes if finding.stated_bytes is not None else finding.claim.size,
            digests.get("sha256", ""),
            digests.get("git", ""),
        )
        from_hub: StatedComponent | None = None
        if repository and is_commit(commit) and path:
            upstream = {"kind": "hub", "repository": repository, "commit": commit}
            from_hub = StatedComponent(f"{repository}@{commit}", upstream, (file,))
        return _Lost(finding.mends, file, from_hub, damaged)

    # --- here ----------------------------------------------------------------------------------------------

    def _here(self, lost: _Lost) -> Held | None:
        """Another copy on this machine: of another repository, of the store."""
        file = lost.file
        wanted = Wanted(file.size, file.sha256, file.git, Path(file.path).name)
        own = os.path.realpath(lost.mends)
        for path in find_local(self._context, [wanted]).get(0, ()):
            if str(path) == own:
                continue
            try:
                found = hash_one(path, git=bool(file.git))
            except (IntegrityError, StoreError):
                continue
            if matches(file, found):
                self.reused_bytes += file.size
                stamp = Stamp.of(found.status)
                outside = not path.is_relative_to(self._context.store.root)
                return Held(_entry(file, found), path, stamp, AdoptedFile(path, stamp) if outside else None)
        return None

    # --- from upstream -------------------------------------------------------------------------------------

    def _fetch(self, group: Sequence[_Lost]) -> dict[Path, Held]:
        source = group[0].source
        assert source is not None
        wanted: dict[Path, StatedFile] = {}
        try:
            files = self._sized(source, [each.file for each in group])
            wanted = {each.mends: files[each.file.stated] for each in group if each.file.stated in files}
            self._draft(source, wanted, group)
        except Interrupted:
            raise
        except DiachunkError as error:
            self.errors |= {each.mends: error for each in group}
            if isinstance(error, IntegrityError) and len(wanted) > 1:
                self._draft_each(source, wanted, group)
        knowledge = Knowledge(self._context.store)
        hashes = {mends: (file, knowledge.find(file)) for mends, file in wanted.items()}
        held = {mends: self._held(file, found) for mends, (file, found) in hashes.items() if found}
        return {mends: each for mends, each in held.items() if each is not None}

    def _draft_each(
        self, source: StatedComponent, wanted: dict[Path, StatedFile], group: Sequence[_Lost]
    ) -> None:
        """One that comes wrong ends the run for all of them: the others are had one by one."""
        for mends, file in wanted.items():
            try:
                self._draft(source, {mends: file}, group)
            except Interrupted:
                raise
            except DiachunkError as error:
                self.errors[mends] = error

    def _sized(self, source: StatedComponent, files: Sequence[StatedFile]) -> dict[str, StatedFile]:
        """The same files with the sizes that upstream states: a damaged file's own size may be wrong."""
        given = {file.stated: replace(file, component=source.name) for file in files}
        if source.upstream.get("kind") != "hub":
            return given
        from diachunk.sources.hub import ask
        from diachunk.sources.hub_access import hub_access

        wanted = HubUpstream(str(source.upstream["repository"]), str(source.upstream["commit"]))
        try:
            found = ask(source.name, wanted, hub_access(), self._context.config.limits)
        except TransferIncomplete:
            if not (self._origins or self._context.config.origins):
                raise
            return given  # the user's own origins may have them, and the sizes found here may be right
        except UsageError:
            return given  # what asks is not installed, or the repository is gone from there
        stated = {file.stated: file for file in found.files}
        return {name: stated[name] for name in given if name in stated}

    def _draft(self, source: StatedComponent, wanted: dict[Path, StatedFile], group: Sequence[_Lost]) -> None:
        context, files = self._context, tuple(wanted.values())
        checkpoint = StatedCheckpoint("repair", (replace(source, files=files),))
        prefixes = [
            (wanted[each.mends].key, each.damaged) for each in group if each.damaged and each.mends in wanted
        ]
        drafting = Drafting(
            context.store,
            open_stated(checkpoint, context, self._origins),
            context.config.limits,
            known=Knowledge(context.store).find,
            prefixes=prefixes,
            max_down_bps=self._max_down_bps or context.config.max_down_bps,
            listener=self._listener,
        )
        self._drafted += files
        try:
            drafting.fetch(files)
        finally:
            self.fetched_bytes += drafting.report.fetched_bytes
            self.reused_bytes += drafting.report.reused_bytes

    def _held(self, file: StatedFile, hashes: Hashes) -> Held | None:
        entry = _entry(file, hashes)
        holding = self._context.store.blobs.find(entry.blake3, entry.size, entry.chunks)
        if holding.presence is not Presence.PROVEN or holding.path is None:
            return None
        return Held(entry, holding.path, Stamp.of(os.stat(holding.path)), holding.adopted)


def _entry(file: StatedFile, hashes: Hashes) -> FileEntry:
    return FileEntry(file.path, hashes.size, hashes.blake3, chunk_list(hashes), hashes.sha256, git=hashes.git)


def _origin_of(finding: Finding) -> tuple[str, str, str]:
    """Repository, commit and path of a file in a hub's cache; "" for what is not known."""
    entry = finding.entry
    if entry is not None:
        return entry.repository, entry.commit, entry.file
    parts = finding.report.path.relative_to(finding.place.root).parts
    repository = repository_of(parts[0]) if parts else ""
    if repository and parts[1:2] == ("snapshots",) and len(parts) > 3:
        return repository, parts[2], "/".join(parts[3:])
    return repository, "", ""
