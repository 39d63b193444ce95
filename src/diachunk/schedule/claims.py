"""What the schedule answers a lane: a request to make, a time to wait until, or the end."""

from __future__ import annotations

from dataclasses import dataclass

from diachunk.schedule.work import Run


@dataclass(slots=True, eq=False)
class Claim:
    """One request under way: a run of items from one source.

    Attributes:
        source: the source's number.
        size: bytes asked for.
        hedge: a duplicate of a request that would finish last.
        stream: `run` covers a whole blob, read once from its start; items are taken as it reaches them.
        received_bytes: bytes in the buffer so far (of a stream: read so far).
        settled_bytes: of those, verified, found bad or thrown away.
        cancelled: all it would bring has come from elsewhere.
    """

    source: int
    run: Run
    size: int
    started_at: float
    hedge: bool = False
    stream: bool = False
    received_bytes: int = 0
    verified_bytes: int = 0
    settled_bytes: int = 0
    bad_items: int = 0
    last_byte_at: float = 0.0
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do before `until`, or before another claim ends."""

    until: float


@dataclass(frozen=True, slots=True)
class Ended:
    """No claim will ever follow: everything is DONE, or (`why`) nothing can bring the rest."""

    why: str = ""
