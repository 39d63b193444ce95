"""Who draws the same recipe at the same time: what they have in common, and what this machine can give them at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from diachunk.api.context import Context
from diachunk.chunking.hashes import Hashes
from diachunk.digest import Digest
from diachunk.manifest.stated import StatedCheckpoint, StatedFile
from diachunk.manifest.statement import Statement
from diachunk.store.drafts import chunk_list
from diachunk.transfer.company import Swarm


def swarm_of(
    stated: StatedCheckpoint, find: Callable[[StatedFile], Hashes | None], context: Context
) -> Swarm | None:
    """The other machines, for the sessions that draw what is stated; None where nothing is missing, or this call has
    no company.

    Args:
        find: the digests of a file that is here, and proven to be what is stated.
    """
    if context.sharing is None:
        return None
    here: dict[Digest, Path] = {}
    missing = False
    for file in stated.walk():
        hashes = find(file)
        if hashes is None:
            missing = True
            continue
        path = context.store.blobs.find(hashes.blake3, hashes.size, chunk_list(hashes)).path
        if path is not None:
            here[file.key] = path
    if not missing:
        return None
    return context.sharing.swarm_of(Statement.of(stated.walk(), private=stated.private), here)
