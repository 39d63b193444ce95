"""Other processes at work on the same files: waiting for them, and giving up on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from diachunk.errors import StoreError
from diachunk.limits import Limits
from diachunk.store.locks import held_by_another
from diachunk.transfer.progress import Listener, Notice

_POLL_S = 0.25


def wait_for_neighbour(label: str, paths: Sequence[Path], limits: Limits, listener: Listener) -> None:
    """Another process fills these files: lets it, as long as it gets on.

    Raises:
        StoreError: it showed no sign of life for the patience.
    """
    listener(Notice(f"another diachunk is fetching {label}; waiting for it"))
    progress_at = time.monotonic()
    before: list[tuple[int, int] | None] = []
    while time.monotonic() - progress_at < limits.patience_s:
        held = [held_by_another(path) for path in paths]
        if all(each is None for each in held):
            return
        if held != before:
            progress_at, before = time.monotonic(), held
        time.sleep(_POLL_S)
    raise StoreError(
        f"another diachunk holds {label} and gets nowhere",
        hint="stop that process, then run the same again",
    )


def gone_again() -> StoreError:
    """What a fetch says that loses, time and again, to a removal at the same time."""
    return StoreError(
        "another process removes these files as they arrive",
        hint="is a `gc` or `rm` running? run the same again",
    )
