"""Makes every chunk of a checkpoint present in a destination, from the cheapest source that has it.

Fetch, resume, dedup and repair are this one function: they differ in what lies there when it starts.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diachunk.errors import ManifestError
from diachunk.limits import Limits
from diachunk.schedule.health import Health, Tier
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.sources.base import Source
from diachunk.store.blobs import Holding, Presence
from diachunk.store.extents import allocated
from diachunk.store.partial import Partial, Vanished
from diachunk.store.store import Store
from diachunk.transfer.check import Checked, check_files
from diachunk.transfer.company import Swarm
from diachunk.transfer.destination import Destination
from diachunk.transfer.following import Follower, naming, turns
from diachunk.transfer.incomplete import incomplete
from diachunk.transfer.neighbours import gone_again, wait_for_neighbour
from diachunk.transfer.offers import local_offers, network_offer
from diachunk.transfer.progress import FileDone, How, Listener, Notice, Progress, Retractable, silent
from diachunk.transfer.room import check_room
from diachunk.transfer.session import Outcome, Session

Hasten = Callable[[Iterable[int]], None]
"""Brings items of a running session forward, in this order; on any thread."""
First = Callable[[WorkList, Hasten], Iterable[int]]
_ROUNDS_MAX = 8
_FILES_AT_ONCE_MIN = 32


@dataclass(slots=True)
class Report:
    """What it took. Bytes are verified bytes: of `total_bytes`, `present_bytes` were here and proven before it started,
    `reused_bytes` came from other files here, `fetched_bytes` from the network; `wasted_bytes` came twice, or were
    thrown away. `elapsed_s`: seconds by the clock. `repaired`: files that were here, and damaged.
    """

    total_bytes: int = 0
    present_bytes: int = 0
    reused_bytes: int = 0
    fetched_bytes: int = 0
    wasted_bytes: int = 0
    elapsed_s: float = 0.0
    repaired: list[Checked] = field(default_factory=list)
    sources: tuple[Health, ...] = ()


class Assembly:
    """One run of `make_present`. Rounds, because another process may hold or finish some of the files."""

    def __init__(
        self,
        store: Store,
        destination: Destination,
        sources: Sequence[Source],
        limits: Limits,
        *,
        lower: Sequence[Store] = (),
        max_down_bps: int | None = None,
        names: bool = False,
        first: First | None = None,
        swarm: Swarm | None = None,
        listener: Listener = silent,
    ) -> None:
        """Args:
        names: also compute SHA-256 and git's id of what becomes present: other caches keep files under those.
        first: says which items of a work list are wanted before all others; keeps the other argument to say more later.
        swarm: the other machines, which come as sources while it runs and are given what is verified.
        """
        self.report = Report()
        self._names = names
        self._first = first
        self._swarm = swarm
        self._store = store
        self._destination = destination
        self._sources = sources
        self._limits = limits
        self._lower = lower
        self._max_down_bps = max_down_bps
        self._listener = listener
        self._counted: set[tuple[str, str]] = set()
        self._salvage: list[Checked] = []

    def make_present(self, files: Sequence[BlobFacts], damaged: Sequence[Checked] = ()) -> Report:
        """Returns when every file is complete and durable. `damaged` ones were read and found so just now.

        Raises:
            TransferIncomplete: no usable source is left; names every source and what it did.
            StoreError: the disk refused.
            ManifestError: its chunks do not make up the files that it names.
            Interrupted: Ctrl-C.
        """
        started_at = time.monotonic()
        self.report.total_bytes = sum(facts.size for facts in files)
        try:
            for each in damaged:
                self._give_up(each)
            missing = self._prove_claims(files)
            self._check_space(missing)
            at_once = files_at_once()
            for start in range(0, len(missing), at_once):
                self._make_batch(missing[start : start + at_once])
            return self.report
        finally:
            self.report.elapsed_s = time.monotonic() - started_at

    def _make_batch(self, missing: Sequence[BlobFacts]) -> None:
        for _ in range(_ROUNDS_MAX):
            waiting = self._round(missing)
            if waiting:
                wait_for_neighbour(waiting[0].label, self._busy_paths(waiting), self._limits, self._listener)
            missing = self._prove_claims(missing)
            if not missing:
                return
        raise gone_again()

    def _busy_paths(self, waiting: Sequence[BlobFacts]) -> list[Path]:
        """Both the files themselves, and (for a fetch into another directory, see destination.py) their blobs."""
        paths = [self._destination.partial(facts) for facts in waiting]
        return paths + [self._store.layout.partial(facts.digest, facts.chunks.id) for facts in waiting]

    # --- what is here already ------------------------------------------------------------------------------

    def _prove_claims(self, files: Sequence[BlobFacts]) -> list[BlobFacts]:
        """Sorts files into present and missing; complete files without proof are read and proven or given up.

        Returns:
            The missing ones.
        """
        missing: list[BlobFacts] = []
        claimed: list[tuple[BlobFacts, Holding, Path]] = []
        for facts in files:
            holding = self._destination.find(facts)
            if holding.presence is Presence.PROVEN:
                self._count_present(facts)
            elif holding.path is not None:
                claimed.append((facts, holding, holding.path))
            else:
                missing.append(facts)
        if claimed:
            size = sum(facts.size for facts, _, _ in claimed)
            self._listener(Notice(f"reading {size / 1e6:,.1f} MB that are here but not proven yet"))
            checks = check_files([(facts, path) for facts, _, path in claimed], self._limits)
            for checked, (facts, holding, _) in zip(checks, claimed, strict=True):
                if checked.right and checked.identity is not None:
                    self._destination.prove(facts, holding, checked.identity)
                    self._count_present(facts)
                else:
                    self._give_up(checked)
                    missing.append(facts)
        return missing

    def _give_up(self, checked: Checked) -> None:
        """Makes room for a good file. What is good in the damaged one stays a source, and is hashed again: no
        knowledge of a moment ago survives a neighbour that removes the partial and makes a new one.

        Raises:
            ManifestError: the file is what its digest says, so it is the manifest that is wrong.
        """
        if checked.identity is None or not checked.still_there:
            # Not the file that was read: mended, replaced or removed since. What is there now is looked at anew.
            return
        facts = checked.facts
        holding = self._destination.find(facts)
        held = holding.path == checked.path
        if held and self._store.blobs.whole_file_matches(facts.digest, checked.path):
            again = check_files([(facts, checked.path)], self._limits)[0]
            if again.right and again.identity is not None:
                self._destination.prove(facts, holding, again.identity)
                return
            if again.identity != checked.identity or not again.still_there:
                return  # A neighbour was at it meanwhile: only of a file that stood still is that believed.
            raise ManifestError(
                f"{facts.label}: the file here is what its digest says, and the manifest's chunks contradict it",
                hint="do not use this manifest; the file was left alone",
            )
        where = self._destination.give_up_on(holding, checked) if held else checked.path
        self.report.repaired.append(checked)
        if where is not None and where != self._destination.partial(facts):
            self._salvage.append(replace(checked, path=where))

    def _count_present(self, facts: BlobFacts) -> None:
        key = facts.component, facts.path
        if key not in self._counted:
            self._counted.add(key)
            self.report.present_bytes += facts.size
            self._listener(Progress(facts.size, facts.component, How.REUSED))
            self._listener(FileDone(facts.component, facts.path, facts.size))

    # --- one round -----------------------------------------------------------------------------------------

    def _round(self, missing: Sequence[BlobFacts]) -> list[BlobFacts]:
        """Fills every file whose partial nobody else holds; returns the others."""
        opened: list[tuple[BlobFacts, Partial]] = []
        waiting: list[BlobFacts] = []
        try:
            for facts in missing:
                partial = self._destination.open(facts)
                try:
                    arrived = self._destination.find(facts).path is not None
                except BaseException:
                    partial.close()
                    raise
                if arrived:
                    # A neighbour completed it since we looked: what we opened is a fresh, empty name.
                    partial.discard()
                elif partial.locked:
                    opened.append((facts, partial))
                else:
                    partial.close()
                    waiting.append(facts)
            if opened:
                self._fill(opened)
        finally:
            for _, partial in opened:
                partial.close()
        return waiting

    def _fill(self, opened: Sequence[tuple[BlobFacts, Partial]]) -> None:
        partials = [partial for _, partial in opened]
        work = WorkList([facts for facts, _ in opened])
        told = Retractable(self._listener)
        offers = local_offers(work, partials, (self._store, *self._lower), self._salvage)
        offers += [network_offer(source, work) for source in self._sources]
        session = Session(
            work,
            partials,
            offers,
            self._limits,
            max_down_bps=self._max_down_bps,
            listener=told,
            swarm=self._swarm,
        )
        if self._first:
            session.hasten_items(self._first(work, session.hasten_items))
        followers = self._follow(opened) if self._names else []
        try:
            outcome = session.run()
        except Vanished as gone:
            told.retract()
            self._listener(Notice(f"{gone.message}; starting that file over"))
            return
        finally:
            for follower in followers:
                follower.stop()
        self._book(outcome)
        if outcome.why:
            raise incomplete(outcome, work)
        self._counted.update((facts.component, facts.path) for facts, _ in opened)

    def _follow(self, opened: Sequence[tuple[BlobFacts, Partial]]) -> list[Follower[tuple[str, str]]]:
        at_once = turns()
        followers = []
        for facts, partial in opened:
            follower = naming(partial, at_once, git=bool(facts.git))
            partial.names = follower.result
            follower.start()
            followers.append(follower)
        return followers

    def _check_space(self, files: Sequence[BlobFacts]) -> None:
        needed = sum(facts.size - allocated(self._destination.partial(facts)) for facts in files)
        root = self._destination.root
        check_room(needed, self._destination.free_bytes(), root, of_store=root == self._store.root)

    def _book(self, outcome: Outcome) -> None:
        self.report.fetched_bytes += outcome.fetched_bytes
        self.report.reused_bytes += outcome.reused_bytes
        self.report.wasted_bytes += outcome.wasted_bytes
        self.report.sources = tuple(each for each in outcome.sources if each.tier is Tier.NETWORK)


def files_at_once() -> int:
    """How many files are filled side by side: each holds two descriptors, 256 in all is a common limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_FILES_AT_ONCE_MIN, soft // 4) if soft != resource.RLIM_INFINITY else 10**6
