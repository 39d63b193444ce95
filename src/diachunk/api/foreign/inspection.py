"""Reads what lies in other programs' caches, and judges each file by what is known of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diachunk.api.context import Context
from diachunk.api.foreign.known_files import KnownFile, KnownFiles, best_known
from diachunk.api.foreign.name_check import Answer, Claim, check_claims
from diachunk.api.foreign.report import CacheFile, CacheState
from diachunk.api.foreign.walk import oddities, stated_sizes
from diachunk.api.verified import Damage
from diachunk.api.verifying import damage_of
from diachunk.digest import parse_digest
from diachunk.errors import StoreError
from diachunk.places import Entry, Place
from diachunk.places.hub_names import algorithm_of
from diachunk.store.adopted import AdoptedFile
from diachunk.store.blobs import Presence
from diachunk.transfer.check import Checked, check_files
from diachunk.transfer.progress import Event, Listener, Status


@dataclass(slots=True)
class Finding:
    """One name in a cache, and what is needed to judge and to mend it.

    Attributes:
        mends: where a good file would cure it; None if nothing can be said of it.
        known: what manifests and recipes say that it should be, the likeliest first.
        claim: the digest that decides where no manifest does.
        checked: what comparing it with a manifest's chunks found.
        guessed: it only has the size of what is known: if it is that, good; if not, nobody said that it is.
        stated_bytes: the size that a client wrote down for it, if one did.
    """

    place: Place
    report: CacheFile
    mends: Path | None = None
    entry: Entry | None = None
    known: Sequence[KnownFile] = ()
    claim: Claim | None = None
    checked: Checked | None = None
    guessed: bool = False
    stated_bytes: int | None = None

    @property
    def entry_names_it(self) -> bool:
        """Whether its own name says what it should be."""
        return self.entry is not None and bool(self.entry.algorithm)

    @property
    def by_chunks(self) -> KnownFile | None:
        """The manifest's file that it is compared with."""
        return next((each for each in self.known if each.manifest is not None), None)


class Inspection:
    """One look through some caches."""

    def __init__(self, context: Context, places: Sequence[Place], listener: Listener) -> None:
        self.findings: list[Finding] = []
        self.checked_bytes = 0
        self._context = context
        self._places = places
        self._listener = listener
        self._sizes: dict[Path, int] = {}

    def look(self) -> None:
        """Finds everything, then reads it: what manifests know first, then the rest by whole-file digests."""
        index = self._index()
        for place in self._places:
            self._sizes |= stated_sizes(place)
            for entry in place.entries():
                self.findings.append(self._of_entry(index, place, entry))
            for odd in oddities(place):
                report = CacheFile(place.kind, odd.path, odd.label, odd.size, odd.state, why=odd.why)
                self.findings.append(self._of_name(index, place, report, odd.mends))
        files = [each for each in self.findings if each.entry is not None]
        whole = [each for each in files if each.claim and not each.by_chunks]
        rest = sum(each.report.size for each in whole)
        self._compare([each for each in files if each.by_chunks], rest)
        self._hash(whole)
        for each in files:
            if each.report.state in (CacheState.DAMAGED, CacheState.CUT_OFF, CacheState.TOO_LONG):
                self._disown(each)

    def _index(self) -> KnownFiles:
        try:
            return KnownFiles.of(self._context, self._places)
        except StoreError:  # what ships with the package is known without a store
            return KnownFiles.of(None, self._places)

    def _of_entry(self, index: KnownFiles, place: Place, entry: Entry) -> Finding:
        named = index.named(place, entry)
        known = best_known(named or index.alike(place, entry))
        shared = Path(os.path.realpath(entry.path)) if entry.shared else None
        report = CacheFile(place.kind, entry.path, entry.label, entry.size, CacheState.UNKNOWN, shared=shared)
        finding = Finding(place, report, entry.path, entry, known, guessed=not named)
        finding.stated_bytes = self._sizes.get(entry.path)
        stated = next((each.stated for each in known if each.stated), None)
        if entry.algorithm:
            finding.claim = Claim(entry.path, entry.size, entry.algorithm, entry.expected)
        elif stated is not None:
            algorithm = "sha256" if stated.sha256 else "git"
            finding.claim = Claim(entry.path, entry.size, algorithm, stated.sha256 or stated.git)
        return finding

    def _of_name(self, index: KnownFiles, place: Place, report: CacheFile, mends: Path | None) -> Finding:
        """Of what is no file: what should be there, for repairing."""
        if mends is None:
            return Finding(place, report)
        algorithm, size = algorithm_of(mends.name) if place.kind == "hub" else "", self._sizes.get(mends)
        claim = Claim(mends, size or 0, algorithm, mends.name) if algorithm else None
        return Finding(
            place, report, mends, known=best_known(index.at(mends)), claim=claim, stated_bytes=size
        )

    # --- by chunks -----------------------------------------------------------------------------------------

    def _compare(self, findings: Sequence[Finding], rest: int) -> None:
        """Against manifests; against another one that knows the file where the first one's chunks do not fit."""
        turn = 0
        todo = list(findings)
        while todo:
            options = [[each for each in finding.known if each.manifest] for finding in todo]
            pairs = [
                (known[turn].facts, finding.report.path) for finding, known in zip(todo, options, strict=True)
            ]
            checks = check_files(
                pairs, self._context.config.limits, listener=_with_rest(self._listener, rest)
            )
            again = []
            for finding, known, checked in zip(todo, options, checks, strict=True):
                self._judge(finding, known[turn], checked)
                if finding.report.state.wrong and turn + 1 < len(known):
                    again.append(finding)
            todo, turn = again, turn + 1
        self._doubt(findings)

    def _judge(self, finding: Finding, known: KnownFile, checked: Checked) -> None:
        self.checked_bytes += sum(checked.facts.chunks.sizes[index] for index in checked.good)
        before = finding.checked
        if before is not None and not checked.right and len(checked.bad) >= len(before.bad):
            return
        finding.checked = checked
        if checked.right:
            self._put(finding, CacheState.OK, known)
            self._keep(known, checked)
        elif checked.identity is None:
            self._put(finding, CacheState.UNKNOWN, why="it went away meanwhile")
        elif checked.unreadable:
            self._put(finding, CacheState.UNREADABLE, known, why=checked.unreadable)
        elif finding.guessed:
            self._put(finding, CacheState.UNKNOWN)
        else:
            state, why = _by_size(checked.identity.size, checked.facts.size, checked.path)
            self._put(finding, state, known, why=why, damage=damage_of(checked))

    def _doubt(self, findings: Sequence[Finding]) -> None:
        """A manifest can be wrong, too: a file that has the digest in its own name is what the hub gave."""
        named = [each for each in findings if each.claim and each.report.state is CacheState.DAMAGED]
        answers = check_claims([each.claim for each in named if each.claim])
        for finding, answer in zip(named, answers, strict=True):
            if finding.claim and answer.found == finding.claim.expected:
                why = f"the manifest of {finding.report.known_by} contradicts it: do not use that"
                self._put(finding, CacheState.OK, why=why)

    def _keep(self, known: KnownFile, checked: Checked) -> None:
        """What was proven just now needs no second reading when it is fetched: it is adopted."""
        file = known.entry
        try:
            store = self._context.store
            real = Path(os.path.realpath(checked.path))
            inside = real.is_relative_to(os.path.realpath(store.root))
            holding = store.blobs.find(file.blake3, file.size, file.chunks)
            if not inside and holding.presence is not Presence.PROVEN and checked.identity is not None:
                stamp = checked.identity.adding(chunk_list=file.chunks.id)
                store.blobs.adopted.put(file.blake3, AdoptedFile(real, stamp))
        except StoreError:
            return  # it only saves work

    def _disown(self, finding: Finding) -> None:
        """The store may count on this very file: adopted while it was right, or placed by a link to a blob of its own.
        From here on an adopted one is good for its chunks alone, and a blob has to be read again.
        """
        try:
            store, real = self._context.store, Path(os.path.realpath(finding.report.path))
            adopted, known = store.blobs.adopted, finding.by_chunks
            for digest in adopted.digests_of(real):
                for file in adopted.of(digest, real):
                    adopted.put(digest, replace(file, stamp=replace(file.stamp, lists=()), spoiled=True))
            digests = {known.entry.blake3} if known else set()
            if real.is_relative_to(os.path.realpath(store.root)):
                digests.add(parse_digest(real.name))
            for digest in digests:
                blob = store.layout.blob(digest)
                if os.path.exists(blob) and os.path.samefile(real, blob):
                    store.layout.files.unlink(store.layout.stamp(digest))
        except (StoreError, OSError, ValueError):
            return

    # --- by whole-file digests -----------------------------------------------------------------------------

    def _hash(self, findings: Sequence[Finding]) -> None:
        claims = [each.claim for each in findings if each.claim]
        for finding, answer in zip(findings, check_claims(claims, self._listener), strict=True):
            self.checked_bytes += finding.report.size if answer.found else 0
            self._judge_whole(finding, answer)

    def _judge_whole(self, finding: Finding, answer: Answer) -> None:
        claim = finding.claim
        assert claim is not None
        known = next(iter(finding.known), None)
        if answer.why:
            self._put(finding, CacheState.UNREADABLE, known, why=answer.why)
        elif answer.found == claim.expected:
            self._put(finding, CacheState.OK, known)
        elif finding.guessed and not finding.entry_names_it:
            self._put(finding, CacheState.UNKNOWN)
        else:
            size = known.entry.size if known else finding.stated_bytes
            state, why = _by_size(claim.size, claim.size if size is None else size, claim.path)
            said = f"its {claim.algorithm} is {answer.found[:12]}…, not {claim.expected[:12]}…"
            self._put(finding, state, known, why=why or said)

    def _put(
        self,
        finding: Finding,
        state: CacheState,
        known: KnownFile | None = None,
        *,
        why: str = "",
        damage: tuple[Damage, ...] = (),
    ) -> None:
        by = known.checkpoint if known else ""
        finding.report = replace(finding.report, state=state, known_by=by, why=why, damage=damage)


def _by_size(actual: int, wanted: int, path: Path) -> tuple[CacheState, str]:
    if actual == wanted:
        return CacheState.DAMAGED, ""
    if actual > wanted:
        return CacheState.TOO_LONG, f"{actual - wanted:,} bytes follow its end"
    why = f"{wanted - actual:,} of {wanted:,} bytes are missing at its end"
    if path.suffix in (".pth", ".pt", ".bin"):
        why += "; PyTorch says of such a file: failed finding central directory"
    return CacheState.CUT_OFF, why


def _with_rest(listener: Listener, rest: int) -> Callable[[Event], None]:
    """Counts what a later pass will read into what is left."""

    def tell(event: Event) -> None:
        if isinstance(event, Status):
            event = replace(event, left_bytes=event.left_bytes + rest)
        listener(event)

    return tell
