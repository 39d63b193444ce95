"""Whether anything of what was placed is still there. What is gone for good is forgotten, so that `gc` can free it."""

from __future__ import annotations

import enum
import os
import stat
import time
from functools import partial

from diachunk.digest import Digest
from diachunk.places.records import How, Placement, Put, Records
from diachunk.places.undo import Undoer
from diachunk.store.store import Store
from diachunk.within import within

_PATIENCE_S = 10.0
_LOOK_S = 0.2


class Left(enum.Enum):
    """What is left of a placement."""

    SOME = "some"
    NOTHING = "nothing"
    UNSEEN = "unseen"
    """No name is there, and neither is the directory in which they were: its disk may only not be mounted now."""
    SILENT = "silent"
    """Its disk gives no answer."""


def left_of(placement: Placement) -> Left:
    """Looks for the names that were given. A name that cannot be looked at counts as one that is there."""
    if any(_is_there(placement, put) for put in placement.puts if put.ours and put.how is not How.MARK):
        return Left.SOME
    try:
        root = os.stat(placement.root)
    except OSError:
        return Left.UNSEEN
    # Where a disk is not mounted, its mount point is an empty directory, or some program has made the path anew.
    same = placement.root_id == (root.st_dev, root.st_ino)
    return Left.NOTHING if same and stat.S_ISDIR(root.st_mode) else Left.UNSEEN


def _is_there(placement: Placement, put: Put) -> bool:
    try:
        os.lstat(placement.root / put.where)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def looked_after(records: Records) -> list[tuple[Digest, Placement, Left]]:
    """Every placement of which nothing is to be seen, and how that is. Disks that give no answer are waited for some
    seconds, all of them together.
    """
    seen = []
    patience_s = _PATIENCE_S
    for each in records.ids():
        for placement in records.get(each):
            began_at = time.monotonic()
            try:
                left = within(max(_LOOK_S, patience_s), partial(left_of, placement))
            except TimeoutError:
                left = Left.SILENT
                patience_s -= time.monotonic() - began_at
            seen.append((each, placement, left))
    return [(each, placement, left) for each, placement, left in seen if left is not Left.SOME]


def forget(store: Store, manifest_id: Digest, placement: Placement) -> bool:
    """Takes it out of its record, and away what only marked the directory; False if something of it is there again.

    Raises:
        StoreError: the disk refused.
    """
    return Undoer(store, manifest_id, placement).undo_if(lambda: left_of(placement) is Left.NOTHING)
