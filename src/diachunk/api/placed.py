"""What was placed for other programs and is not there any more: forgotten, or named where nobody can tell."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field

from diachunk.api.context import Context
from diachunk.digest import Digest
from diachunk.places.gone import Left, forget, looked_after
from diachunk.places.records import Placement, Records
from diachunk.store.store import Store

_WHY_KEPT = {
    Left.UNSEEN: "is not there now (not mounted?)",
    Left.SILENT: "gives no answer (its disk or server is away)",
}


@dataclass(slots=True)
class Tidied:
    """Attributes:
    free: of a dry run, checkpoints that would not be placed anywhere any more.
    notes: what to tell a person.
    """

    free: list[Digest] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def forget_gone(context: Context, *, dry_run: bool) -> Tidied:
    """Forgets places of which the user removed everything by hand. One whose directory is not there is kept: its disk
    may not be mounted now, and links on it lead to our files.

    Raises:
        StoreError: the disk refused.
    """
    store, tidied = context.store, Tidied()
    records = Records(store.layout)
    suspects = looked_after(records)
    if not suspects:
        return tidied
    names = names_of(store)
    # As whoever places does: between the record of a name and the name itself nobody looks here.
    with store.layout.guard(sweeping=not dry_run):
        for manifest_id, placement, left in suspects:
            name = names.get(manifest_id, manifest_id.hex()[:16])
            if left in _WHY_KEPT:
                cure = shlex.join(undoing(name, placement))
                tidied.notes.append(
                    f"{name} is kept for {placement.root}, which {_WHY_KEPT[left]}; gone for good: {cure}"
                )
            elif dry_run:
                tidied.notes.append(
                    f"would forget that {name} was placed in {placement.root}: nothing of it is left"
                )
            else:
                if not forget(store, manifest_id, placement):
                    continue
                tidied.notes.append(
                    f"{name} is not placed in {placement.root} any more: nothing of it is left there"
                )
    if dry_run:
        gone = Counter(manifest_id for manifest_id, _, left in suspects if left is Left.NOTHING)
        tidied.free = [each for each, count in gone.items() if count == len(records.get(each))]
    return tidied


def names_of(store: Store) -> dict[Digest, str]:
    """A local name of each checkpoint that has one."""
    return {ref.manifest_id: str(ref) for ref in store.catalog.refs()}


def undoing(name: str, placement: Placement) -> list[str]:
    """The command that forgets a place."""
    return ["diachunk", "place", name, "--undo", "--into", str(placement.root)]
