"""What was placed for other programs, and whether anything of it is still there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from diachunk.api.checkup.base import Area, Finding, Level, Patient, count
from diachunk.api.checkup.contents import open_store
from diachunk.api.placed import names_of, undoing
from diachunk.places.gone import Left, looked_after
from diachunk.places.records import Records


def placed(patient: Patient) -> Iterator[Finding]:
    """Whether places of which the store keeps a record still show anything: a record keeps its checkpoint."""
    store = open_store(patient)
    if store is None:
        return
    records = Records(store.layout)
    lost = looked_after(records)
    names = names_of(store)
    for manifest_id, placement, left in lost:
        name = names.get(manifest_id, manifest_id.hex()[:16])
        if left is Left.NOTHING:
            what = f"{name} was placed in {placement.root}, and nothing of it is left there: that keeps it from gc"
            yield Finding(Level.NOTE, Area.STORE, what, "diachunk gc")
        else:
            what = f"{name} is kept for {placement.root}, which is not there now: not mounted?"
            cure = f"{shlex.join(undoing(name, placement))}  # if it is gone for good"
            yield Finding(Level.NOTE, Area.STORE, what, cure)
    if not lost:
        what = f"{count(len(records.ids()), 'checkpoint')} placed for other programs, each of them there"
        yield Finding(Level.OK, Area.STORE, what, "")
