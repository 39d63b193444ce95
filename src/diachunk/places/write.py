"""Places one component: judges every name, prepares all that is new, records it, then renames it into place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from diachunk.digest import Digest
from diachunk.errors import StoreError, from_os_error
from diachunk.places.base import Layout, Place, Pointer, Spot, Text
from diachunk.places.judge import Judge, Judged, Verdict, needs_of, parent
from diachunk.places.links import LinkMode, Made
from diachunk.places.prepare import Item, Preparer
from diachunk.places.proof import Held
from diachunk.places.records import How, Put, Records
from diachunk.places.tree import Lost, Tree
from diachunk.places.workers import Teller, at_once
from diachunk.store.files import Files
from diachunk.store.store import Store

_ROUNDS = 4
"""Times that it is all looked at anew because somebody else changed what was judged."""


@dataclass(slots=True)
class Written:
    """What came of one component in one place: for each path what is there now, and what people should know."""

    hows: dict[str, How] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Telling:
    """Whom to tell: of bytes that are about to be copied, and of (component, bytes) that were read."""

    expected: Callable[[int], None]
    read: Teller


class Writer:
    """One component into one place. Nothing of a user's is written to, followed or removed.

    Args:
        held: the proven file of each blake3 digest that the layout names.
        force: moves what is in the way aside, in place of giving up.
    """

    def __init__(
        self,
        store: Store,
        manifest_id: Digest,
        place: Place,
        layout: Layout,
        held: Mapping[Digest, Held],
        *,
        mode: LinkMode,
        force: bool,
        telling: Telling,
    ) -> None:
        self._store = store
        self._id = manifest_id
        self._place = place
        self._layout = layout
        items: list[Item] = [*layout.spots, *layout.pointers, *layout.texts]
        self._items = {each.where: each for each in items}
        self._held = held
        self._mode = mode
        self._force = force
        self._telling = telling
        self._records = Records(store.layout)
        files = Files()
        self._tree = Tree(place.root, files, store.layout.store_id)
        self._preparer = Preparer(
            self._tree,
            files,
            held,
            mode,
            layout.staging,
            lambda size: telling.read(layout.component, size),
            self._say,
        )
        self.written = Written()

    def look(self) -> Written:
        """What writing would find, without reading files: for a dry run."""
        for where, judged in self._judge(reads=False).items():
            self.written.verdicts[where] = judged.verdict
            if judged.put is not None:
                self.written.hows[where] = judged.put.how
        return self.written

    def clean(self) -> None:
        """Removes what killed runs left where this one is to write. Only while nobody else places."""
        for head in sorted({self._layout.staging or parent(where) for where in self._items}):
            self._tree.sweep(head)

    def write(self) -> Written:
        """Makes it so, durably.

        Raises:
            StoreError: something is in the way (and `force` off), or the disk refused.
            IntegrityError: the bytes copied are not the file's.
        """
        try:
            for left in reversed(range(_ROUNDS)):
                judged = self._judge(reads=True)
                self._refuse(judged)
                try:
                    if self._round(judged):
                        return self.written
                except Lost:
                    if not left:
                        raise
                except FileNotFoundError as error:
                    if not left:
                        raise from_os_error(error, "write", self._place.root) from error
            raise StoreError(
                f"{self._place.root} changes all the time: another program writes there",
                hint="run the same again",
            )
        except BaseException:
            self._tree.abandon()
            raise

    def _judge(self, *, reads: bool) -> dict[str, Judged]:
        known = self._records.at(self._place.root)

        def judge_one(item: Item, hashed: Teller) -> Judged:
            component = self._layout.component
            judge = Judge(self._store, self._tree, component, known, self._mode, reads, hashed)
            match item:
                case Spot():
                    return judge.spot(item, self._held[item.file.blake3])
                case Pointer():
                    return judge.pointer(item, self._held[item.file.blake3])
                case Text():
                    return judge.text(item)

        judged = at_once(judge_one, list(self._items.values()), self._telling.read)
        return dict(zip(self._items, judged, strict=True))

    def _refuse(self, judged: Mapping[str, Judged]) -> None:
        wrong = [where for where, each in judged.items() if each.verdict is Verdict.IN_THE_WAY]
        if wrong and not self._force:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise StoreError(
                f"{self._tree.path(wrong[0])} is in the way: not what belongs there, and not diachunk's{more}",
                hint="--force moves it aside, keeping it; or move it away",
            )

    def _round(self, judged: Mapping[str, Judged]) -> bool:
        """Prepares, records, renames. False if something changed since it was judged: then all is judged anew."""
        made: dict[str, Made] = {}
        self._expect(judged)
        try:
            for where, each in judged.items():
                if each.verdict.to_put:
                    made[where] = self._preparer.prepare(self._items[where])
            with self._store.layout.guard(sweeping=False), self._records.alone():
                if not all(self._unchanged(where, judged[where]) for where in made):
                    return False
                self._still_held(made)
                # Before anything has its name: stopped in between, it would count as the user's for ever.
                puts = [self._put_of(where, each, made.get(where)) for where, each in judged.items()]
                self._records.add(self._id, self._place.kind, self._place.root, filter(None, puts))
                return self._commit(judged, made)
        finally:
            for ready in made.values():
                self._tree.discard(ready.staging, ready.temporary)

    def _expect(self, judged: Mapping[str, Judged]) -> None:
        """Only copies take time to make."""
        to_put = [self._items[where] for where, each in judged.items() if each.verdict.to_put]
        size_bytes = sum(item.file.size for item in to_put if isinstance(item, Spot))
        if self._mode is LinkMode.COPY and size_bytes:
            self._telling.expected(size_bytes)

    def _still_held(self, made: Mapping[str, Made]) -> None:
        """What is to be linked to is there while no collection runs; from here on the record keeps it."""
        for each in made.values():
            if each.how is How.SYMLINK:
                with contextlib.suppress(OSError):
                    if each.stamp is not None and each.stamp.matches(os.stat(each.target)):
                        continue
                raise StoreError(f"{each.target} is gone", hint="fetch the checkpoint again, then place it")

    def _unchanged(self, where: str, judged: Judged) -> bool:
        found = self._tree.look(where)
        return judged.found is None if found is None else found.same(judged.found)

    def _put_of(self, where: str, judged: Judged, made: Made | None) -> Put | None:
        if made is None:
            return judged.put
        item = self._items[where]
        base = Put(self._layout.component, where, made.how, stamp=made.stamp, target=made.target)
        match item:
            case Spot():
                return replace(
                    base, blake3=item.file.blake3.hex(), readers=item.readers, staging=made.staging
                )
            case Text():
                needs = needs_of(item, judged.before)
                return replace(base, before=judged.before, needs=needs, staging=made.staging)
            case Pointer():
                return base

    def _commit(self, judged: Mapping[str, Judged], made: dict[str, Made]) -> bool:
        """Files first, then what points at them, then refs: whoever finds one finds all that it leads to."""
        for where in self._layout.hidden_by:
            if self._tree.look(where) is not None:
                aside = self._tree.move_aside(where)
                self._say(f"{self._tree.path(where)} hid a file that is here: it is {aside.name} now")
        for kind in (Spot, Pointer, Text):
            for where in [each for each, item in self._items.items() if isinstance(item, kind)]:
                each, ready = judged[where], made.get(where)
                if ready is None:
                    if each.put is not None and each.put.ours:
                        self._tree.found(where)
                    self.written.hows[where] = each.put.how if each.put is not None else How.KEPT
                    continue
                if not self._unchanged(where, each):
                    return False
                if each.verdict is Verdict.IN_THE_WAY:
                    aside = self._tree.move_aside(where)
                    self._say(f"{self._tree.path(where)} was in the way: it is {aside.name} now")
                self._tree.put(where, ready.staging, ready.temporary)
                del made[where]
                self.written.hows[where] = ready.how
                self._tell_of(where, each)
            self._tree.flush()
        return True

    def _tell_of(self, where: str, judged: Judged) -> None:
        item, path = self._items[where], self._tree.path(where)
        if judged.verdict is not Verdict.REPLACE or judged.found is None:
            return
        if isinstance(item, Text) and judged.before:
            text = item.data.decode("utf-8", "replace")
            self._say(f"{path} says {text} now; --undo puts {judged.before[:64]!r} back")
        elif judged.found.target is not None:
            self._say(f"{path} was a link to {judged.found.target}: replaced")

    def _say(self, text: str) -> None:
        if text not in self.written.notices:
            self.written.notices.append(text)
