"""The drafts of one round: what they make a session do, and what it left of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import TypeAlias

from diachunk.digest import Digest
from diachunk.manifest.stated import StatedFile
from diachunk.schedule.work import BlobFacts, WorkList
from diachunk.store.drafts import Draft
from diachunk.store.extents import allocated
from diachunk.store.store import Store
from diachunk.transfer.room import check_room
from diachunk.transfer.session import Outcome

Opened: TypeAlias = Sequence[tuple[StatedFile, Draft]]


def work_of(opened: Opened) -> WorkList:
    """One blob a draft, in their order."""
    return WorkList(
        [BlobFacts(file.key, file.size, draft.chunks, file.component, file.path) for file, draft in opened]
    )


def left_of(outcome: Outcome, work: WorkList) -> Mapping[Digest, int]:
    """Bytes that did not arrive, by the key of their file."""
    left: Counter[Digest] = Counter()
    for item in outcome.missing:
        left[work.blobs[work.blob_of(item)].digest] += work.size(item)
    return left


def discard(opened: Opened, keys: Container[Digest]) -> None:
    """Throws away what is there of these files."""
    for file, draft in opened:
        if file.key in keys:
            draft.discard()


def claimed_bytes(opened: Opened) -> dict[Digest, int]:
    """What a session may find in place, by the key of its file."""
    return {file.key: sum(draft.chunks.sizes[index] for index in draft.claimed()) for file, draft in opened}


def check_space(store: Store, missing: Sequence[StatedFile]) -> None:
    """Whether what is missing fits.

    Raises:
        StoreError: it does not.
    """
    needed = sum(file.size - allocated(store.drafts.path(file)) for file in missing)
    check_room(needed, store.layout.free_bytes(), store.root, of_store=True)
