"""Peers that gave pieces of a stated file: which of them, once the whole turns out to be something else.

No piece of a stated file can be judged alone, so a peer may have given wrong ones, or passed on what it was given
itself. A whole that is not what was stated names all who gave any of it, and costs their company for that file: it
comes from upstream alone next. Once that is right, its pieces are compared with the ones that were thrown away, and
those who gave the wrong ones are named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from diachunk.digest import Digest
from diachunk.manifest.stated import StatedFile
from diachunk.sources.base import Source
from diachunk.sources.peer import PeerSource
from diachunk.store.drafts import Draft
from diachunk.transfer.progress import Listener, Notice
from diachunk.transfer.trials import NotAsStated

_NAMED_MAX = 8
_DOUBTS_MAX = 3
"""So many files came wrong in company; from then on everything comes from upstream alone."""
_KEPT_MAX = 64
"""Files whose wrong pieces are remembered until the right ones are here."""


@dataclass(frozen=True, slots=True)
class _Thrown:
    """What was thrown away: the BLAKE3 of each piece, and who gave which, by number."""

    sums: Mapping[int, Digest]
    given: Mapping[str, frozenset[int]]


class Givers:
    """Of one fetch. Each doubt leaves a file that no peer is asked for any more, so that there is an end to them."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._doubted: set[Digest] = set()
        self._thrown: dict[Digest, _Thrown] = {}
        self._told = 0

    def may_ask(self, file: StatedFile) -> bool:
        """Whether peers may still give pieces of it."""
        return file.key not in self._doubted and len(self._doubted) < _DOUBTS_MAX

    def any_of(self, sources: Iterable[Source], file: StatedFile) -> bool:
        """Whether any of these gave some of it."""
        return any(isinstance(each, PeerSource) and file.key in each.pieces for each in list(sources))

    def doubt(self, wrong: NotAsStated, draft: Draft, sources: Iterable[Source]) -> bool:
        """A whole was wrong, and was thrown away. Whether peers gave some of it: then no other source is blamed."""
        file, offsets = wrong.file, draft.chunks.offsets
        given = {
            each.label: frozenset(number for number, at in enumerate(offsets) if at in each.pieces[file.key])
            for each in sources
            if isinstance(each, PeerSource) and file.key in each.pieces
        }
        if not given:
            return False
        self._doubted.add(file.key)
        if len(self._thrown) < _KEPT_MAX:
            self._thrown[file.key] = _Thrown(draft.sums, given)
        self._tell(
            f"{file.label} is not what was stated ({file.stated}, but what came has {wrong.found}); "
            f"{_list(given)} gave pieces of it; fetching it again, from upstream alone"
        )
        return True

    def settle(self, file: StatedFile, draft: Draft) -> None:
        """The whole is right now: names those who gave what it is not."""
        thrown = self._thrown.pop(file.key, None)
        if thrown is None:
            return
        right = draft.sums
        wrong = {number for number, digest in thrown.sums.items() if right.get(number) != digest}
        liars = {label: len(given & wrong) for label, given in thrown.given.items() if given & wrong}
        if liars:
            told = ", ".join(f"{label} {count}" for label, count in sorted(liars.items())[:_NAMED_MAX])
            self._listener(Notice(f"{file.label}: wrong pieces came from peers: {told}"))

    def _tell(self, text: str) -> None:
        """Not a line for each of thousands of files."""
        self._told += 1
        if self._told <= _DOUBTS_MAX:
            self._listener(Notice(text))
        elif self._told == _DOUBTS_MAX + 1:
            self._listener(Notice("further files in company are not what was stated: fetched again likewise"))


def _list(labels: Iterable[str]) -> str:
    named = sorted(labels)
    more = len(named) - _NAMED_MAX
    return f"peer {', '.join(named[:_NAMED_MAX])}{f' and {more} more' if more > 0 else ''}"
