"""The tail: a bounded duplicate of the request that would finish last, once nothing is unassigned. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from diachunk.schedule.board import Board, Candidate
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Tier

_MARGIN_S = 0.1
_SILENT_S = 1.0
"""A request without a byte for this long is taken to finish never."""


@dataclass(frozen=True, slots=True)
class Hedge:
    """Items [first, last] of a slow request, to be asked of `source` as well."""

    source: int
    first: int
    last: int
    size: int


def pick_hedge(
    board: Board,
    claims: Sequence[Claim],
    ready: Iterable[int],
    budget_bytes: float,
    now: float,
    may: Callable[[Candidate, range], bool] | None = None,
) -> Hedge | None:
    """The duplicate that is worth most, or None.

    Args:
        ready: sources that may start a request now.
        may: whether these items may be asked twice of such a source.
    """
    slowest = max(
        (
            (_remaining_s(claim, now), number)
            for number, claim in enumerate(claims)
            if _open(board, claims, claim)
        ),
        default=None,
    )
    if slowest is None:
        return None
    remaining_s, number = slowest
    left = [item for item in claims[number].run.items if board.is_in_flight(item)]
    items = range(left[0], left[-1] + 1)
    silent = now - claims[number].last_byte_at > _SILENT_S
    size = sum(board.work.size(item) for item in items)
    if size > budget_bytes:
        return None
    for source in ready:
        candidate = board.sources[source]
        if source == claims[number].source and not silent:
            continue  # A second request there would only share its line; a hung connection is another matter.
        if _can_serve(board, candidate, items) and (may is None or may(candidate, items)):
            expected_s = size / candidate.health.request_bps
            if remaining_s > 2 * expected_s + _MARGIN_S:
                return Hedge(source, items.start, items.stop - 1, size)
    return None


def _open(board: Board, claims: Sequence[Claim], claim: Claim) -> bool:
    """Whether this request could be hedged: it is alone with items that are still under way."""
    left = [item for item in claim.run.items if board.is_in_flight(item)]
    local = board.sources[claim.source].health.tier is Tier.LOCAL
    return bool(left) and not (claim.stream or claim.cancelled or local or covered(claims, left, claim))


def covered(claims: Sequence[Claim], items: Iterable[int], but: Claim) -> bool:
    """Whether another live claim covers one of these items."""
    wanted = set(items)
    return any(
        not wanted.isdisjoint(claim.run.items)
        for claim in claims
        if claim is not but and not claim.stream and not claim.cancelled
    )


def _remaining_s(claim: Claim, now: float) -> float:
    """How long a request will still take at its own pace so far."""
    elapsed = now - claim.started_at
    if claim.received_bytes and elapsed > 0:
        return (claim.size - claim.received_bytes) * elapsed / claim.received_bytes
    return float("inf") if elapsed > _SILENT_S else 0.0


def _can_serve(board: Board, candidate: Candidate, items: range) -> bool:
    health = candidate.health
    return (
        health.tier is Tier.NETWORK
        and health.request_bps > 0
        and not health.sequential
        and board.work.blob_of(items.start) not in health.missing_blobs
        and all(candidate.may_hold(item) for item in items)
    )
