"""Whether there is room on the disk for what is to come."""

from __future__ import annotations

from pathlib import Path

from diachunk.errors import StoreError


def check_room(needed_bytes: int, free_bytes: int, root: Path, *, of_store: bool) -> None:
    """Args:
        root: where the files go.
        of_store: it is the store's directory, not one that the user named.

    Raises:
        StoreError: it does not fit.
    """
    if needed_bytes <= free_bytes:
        return
    cure = (
        "free some space (`diachunk gc` removes what nothing needs), or `export DIACHUNK_HOME=DIR` on a larger disk"
        if of_store
        else "free some space there, or choose another --to"
    )
    raise StoreError(
        f"{root}: needs {needed_bytes:,} bytes of disk, {free_bytes:,} are free",
        hint=f"{cure}; then run again",
    )
