"""What lies where something is to be placed: nothing, the very thing, something of ours, or of somebody else."""

from __future__ import annotations

import enum
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from diachunk.errors import StoreError
from diachunk.places.base import Manner, Pointer, Spot, Text, names_in
from diachunk.places.links import LinkMode
from diachunk.places.proof import Held, blake3_of
from diachunk.places.records import How, Put, told_of
from diachunk.places.tree import Found, Tree
from diachunk.places.workers import Teller
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store

TEXT_BYTES_MAX = 64 * 1024 * 1024
_WORD = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Verdict(enum.Enum):
    """What is to be done about it."""

    THERE = "there already"
    ABSENT = "to place"
    REPLACE = "to replace"
    UNREAD = "to check"
    IN_THE_WAY = "in the way"

    @property
    def to_put(self) -> bool:
        return self is not Verdict.THERE


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, what was found, and for what is there already the record to keep of it, if any."""

    verdict: Verdict
    found: Found | None
    put: Put | None = None
    before: str = ""


@dataclass(frozen=True, slots=True)
class Judge:
    """Looks, and reads where only that can tell. Changes nothing.

    Attributes:
        known: what was placed in this place before, by path.
        reads: whether to read files of the right size; off for a dry run.
    """

    store: Store
    tree: Tree
    component: str
    known: Mapping[str, Put]
    mode: LinkMode
    reads: bool
    tell: Teller

    def spot(self, spot: Spot, held: Held) -> Judged:
        found = self.tree.look(spot.where)
        if found is None:
            return Judged(Verdict.ABSENT, None)
        base = Put(self.component, spot.where, How.KEPT, spot.file.blake3.hex(), readers=spot.readers)
        if found.target is not None:
            return self._link(spot, held, found, base)
        if not found.is_file:
            return Judged(Verdict.IN_THE_WAY, found)
        recorded = self.known.get(spot.where)
        if recorded is not None and recorded.how.is_link:
            recorded = None  # a run was stopped before it put the link here
        unchanged = (
            recorded is not None and recorded.stamp is not None and recorded.stamp.matches(found.status)
        )
        if recorded is not None and unchanged and recorded.blake3 == base.blake3:
            return self._as_wanted(found, _renewed(recorded, base))
        if held.stamp.matches(found.status):
            how = How.KEPT if held.adopted is not None else How.HARDLINK
            return self._as_wanted(found, _with(base, how, held.stamp))
        if recorded is not None and unchanged and recorded.ours:
            return Judged(Verdict.REPLACE, found)
        return self._bytes(spot.where, held, found, base, Verdict.IN_THE_WAY)

    def _link(self, spot: Spot, held: Held, found: Found, base: Put) -> Judged:
        """A link is not the user's data: what leads to other bytes, or nowhere, is replaced."""
        recorded = self.known.get(spot.where)
        if found.target == os.path.abspath(held.path) and held.adopted is None:
            return self._as_wanted(found, _with(base, How.SYMLINK, held.stamp, found.target))
        if recorded is not None and recorded.how is How.SYMLINK and recorded.target == found.target:
            if recorded.blake3 == base.blake3 and self._leads_to(spot.where, recorded):
                return self._as_wanted(found, _renewed(recorded, base))
            return Judged(Verdict.REPLACE, found)
        return self._bytes(spot.where, held, found, base, Verdict.REPLACE)

    def _leads_to(self, where: str, recorded: Put) -> bool:
        try:
            return recorded.stamp is not None and recorded.stamp.matches(os.stat(self.tree.path(where)))
        except OSError:
            return False

    def _as_wanted(self, found: Found, put: Put) -> Judged:
        """Ours, but by another kind of link than was asked for: made anew."""
        if put.ours and self.mode is not LinkMode.AUTO and put.how not in self.mode.ways:
            return Judged(Verdict.REPLACE, found)
        return Judged(Verdict.THERE, found, put)

    def _bytes(self, where: str, held: Held, found: Found, base: Put, otherwise: Verdict) -> Judged:
        """Not known to us: right if its bytes are, which are read unless that was done before."""
        path = self.tree.path(where)
        try:
            status = os.stat(path)
        except OSError:
            return Judged(otherwise, found)
        recorded = self.known.get(where)
        again = recorded is not None and recorded.stamp is not None and recorded.stamp.matches(status)
        if held.stamp.matches(status) or (again and recorded is not None and recorded.blake3 == base.blake3):
            return Judged(Verdict.THERE, found, _with(base, How.KEPT, Stamp.of(status)))
        if status.st_size != held.file.size:
            return Judged(otherwise, found)
        for record in self.store.blobs.adopted.of(held.file.blake3, path):
            if record.stamp.proves(status, held.file.chunks.id):
                return Judged(Verdict.THERE, found, _with(base, How.KEPT, Stamp.of(status)))
        if not self.reads:
            return Judged(Verdict.UNREAD, found)
        try:
            digest, stamp = blake3_of(path, lambda size: self.tell(self.component, size))
        except StoreError:
            return Judged(otherwise, found)
        if digest != held.file.blake3:
            return Judged(otherwise, found)
        return Judged(Verdict.THERE, found, _with(base, How.KEPT, stamp))

    def pointer(self, pointer: Pointer, held: Held) -> Judged:
        found = self.tree.look(pointer.where)
        if found is None:
            return Judged(Verdict.ABSENT, None)
        base = Put(self.component, pointer.where, How.KEPT, target=pointer.target)
        if found.target is not None:
            recorded = self.known.get(pointer.where)
            if found.target == pointer.target:
                return Judged(Verdict.THERE, found, self._as_recorded(recorded, base))
            return Judged(Verdict.REPLACE, found)
        if not found.is_file:
            return Judged(Verdict.IN_THE_WAY, found)
        return self._bytes(pointer.where, held, found, base, Verdict.IN_THE_WAY)

    def text(self, text: Text) -> Judged:
        found = self.tree.look(text.where)
        if found is None and text.manner is Manner.MARK and names_in(self.tree.path(parent(text.where))):
            return Judged(Verdict.THERE, None)
        if found is None:
            return Judged(Verdict.ABSENT, None)
        if found.target is not None:
            return Judged(Verdict.REPLACE, found)
        if not found.is_file:
            return Judged(Verdict.IN_THE_WAY, found)
        data = self.tree.read_text(text.where, TEXT_BYTES_MAX)
        if data == text.data or text.manner is not Manner.REF:
            put = Put(self.component, text.where, How.KEPT, target="" if data is None else told_of(data))
            return Judged(Verdict.THERE, found, self._as_recorded(self.known.get(text.where), put))
        return Judged(Verdict.REPLACE, found, before="" if data is None else told_of(data))

    def _as_recorded(self, recorded: Put | None, put: Put) -> Put:
        """What we put before, for whatever checkpoint, is ours for this one as well."""
        if recorded is None or not recorded.ours or recorded.target != put.target:
            return put
        return replace(recorded, component=self.component)


def needs_of(text: Text, before: str) -> str:
    """What must exist for the text that was there before to be put back."""
    return text.needs.replace("{}", before) if _WORD.fullmatch(before) else ""


def parent(where: str) -> str:
    """The directory of a relative path."""
    return posixpath.dirname(where)


def _with(base: Put, how: How, stamp: Stamp, target: str = "") -> Put:
    return Put(
        base.component, base.where, how, base.blake3, stamp, target or base.target, readers=base.readers
    )


def _renewed(recorded: Put, base: Put) -> Put:
    """The same put, as this component's."""
    stamp = recorded.stamp
    return recorded if stamp is None else _with(base, recorded.how, stamp, recorded.target)
