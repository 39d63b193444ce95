"""What the bench of the schedule is made of: work lists, and sources with a rate, a latency, a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from diachunk.digest import digest_of
from diachunk.limits import CHUNK_BYTES, MiB
from diachunk.manifest.model import ChunkList
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Fault, Tier
from diachunk.schedule.work import BlobFacts, WorkList

EPSILON = 1e-6


def blob_facts(name: str, sizes: Sequence[int], keys: Sequence[str] | None = None) -> BlobFacts:
    """A file of chunks of these sizes; equal keys make equal chunks."""
    names = keys or [f"{name}/{index}" for index in range(len(sizes))]
    chunks = ChunkList.of((size, digest_of(key.encode())) for size, key in zip(sizes, names, strict=True))
    return BlobFacts(digest_of(name.encode()), sum(sizes), chunks, "model", name)


def work_of(*files: Sequence[int]) -> WorkList:
    """Files of chunks of these sizes, all distinct."""
    return WorkList([blob_facts(f"f{number}", sizes) for number, sizes in enumerate(files)])


def chunks_of_4_mib(count: int) -> WorkList:
    return work_of([CHUNK_BYTES] * count)


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of one request.

    Attributes:
        fault: how it ends, or None.
        after_bytes: bytes that come before the fault or the silence.
        silent: nothing more comes; the watchdog ends it as STALLED after the stall time.
        bad: items whose bytes are wrong.
    """

    fault: Fault | None = None
    after_bytes: int = 0
    silent: bool = False
    bad: frozenset[int] = frozenset()
    retry_after_s: float = 0.0


GOOD = Answer()
SILENT = Answer(silent=True)


@dataclass(slots=True, eq=False)
class Request:
    """One claim as it was served: what a test asserts on.

    Attributes:
        number: 1, 2, ... at its source.
        first_copies: items that this request was the first to bring.
        ended: how; None is well, or not yet (`ended_at` < 0).
    """

    source: str
    number: int
    claim: Claim
    started_at: float
    ended_at: float = -1.0
    ended: Fault | None = None
    first_copies: list[int] = field(default_factory=list)

    @property
    def items(self) -> range:
        return self.claim.run.items


Script: TypeAlias = Callable[[Request], Answer]


@dataclass(slots=True)
class Sim:
    """A simulated source. `rate_bps` is shared by its requests, each of which gets at most `request_bps`."""

    name: str
    rate_bps: float = 100 * MiB
    latency_s: float = 0.01
    script: Script = lambda request: GOOD
    tier: Tier = Tier.NETWORK
    has: frozenset[int] | None = None
    ranges: bool = True
    request_bps: float = float("inf")
    at_once: int | None = None


@dataclass(slots=True, eq=False)
class Transfer:
    """One request being served. `position` counts its bytes; for a stream, from the start of the file."""

    request: Request
    sim: Sim
    answer: Answer
    flows_at: float
    position: float = 0.0
    told: int = 0
    at_item: int = 0
    """Streams: how many items of the run were passed."""
    keeps: bool | None = None
    """Streams: whether the item being read is wanted; None before that was asked."""
    last_byte_at: float = 0.0

    @property
    def claim(self) -> Claim:
        return self.request.claim

    @property
    def goal(self) -> float:
        """The position of the next event."""
        if self.answer.fault or self.answer.silent:
            end = float(min(self.answer.after_bytes, self.claim.size))
        else:
            end = float(self.claim.size)
        if self.claim.stream and self.at_item < len(self.claim.run.refs):
            return min(end, self.claim.run.refs[self.at_item].end)
        return end

    @property
    def flowing(self) -> bool:
        return self.position < self.goal - EPSILON
