"""events: the same progress, asynchronously."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from diachunk.api.asynchronous import from_thread
from diachunk.api.fetching import Snapshot, fetch
from diachunk.transfer.progress import Event


@dataclass(frozen=True, slots=True)
class Fetched:
    """The last event: the fetch is done."""

    snapshot: Snapshot
    bytes: int = 0


def events(target: str, **options: Any) -> AsyncGenerator[Event | Fetched, None]:
    """Fetches on a thread and yields what happens; the last event is Fetched.

    Leaving the loop early stops the fetch; what is verified is kept.

    Args:
        options: those of `fetch`, but for `progress`.

    Raises:
        DiachunkError: as fetch.
    """
    return from_thread(lambda listen: Fetched(fetch(target, progress=listen, **options)))
