"""Whether a source should take one more request near the end, or would only come last with it. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from diachunk.limits import CHUNK_BYTES
from diachunk.schedule.board import Board
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Tier

_PLANNED_MAX = 64
_MARGIN_S = 0.05


class Rates:
    """What all sources together bring, kept up as each changes: there may be forty of them at each claim.

    Attributes:
        sources: those that are known to bring something.
    """

    __slots__ = ("sources", "total_bps")

    def __init__(self) -> None:
        self.sources = 0
        self.total_bps = 0.0

    def changed(self, before_bps: float, after_bps: float) -> None:
        """One of them brings something else now."""
        self.sources += (after_bps > 0) - (before_bps > 0)
        self.total_bps += after_bps - before_bps


def request_bytes(free_bytes: int, lanes: int) -> int:
    """How much one request asks for: less and less towards the end, so that all sources end together.

    Source: guided self-scheduling (Polychronopoulos and Kuck, 1987), with half of each lane's share.
    """
    return min(CHUNK_BYTES, free_bytes // (2 * lanes))


def comes_last(
    board: Board,
    claims: Sequence[Claim],
    rates: Rates,
    number: int,
    item: int,
    free_bytes: int,
    most_bytes: int,
    now: float,
) -> bool:
    """Whether the proven sources beside `number` would have everything sooner than it one request of at most
    `most_bytes` that begins with `item`.

    Without it a line of 20 Mbit/s beside one of 100 starts on its last 4 MiB when the other could bring them
    and all the rest in half the time. Somebody is left that takes it: the one that would be first done with it
    ends no later than any plan of the others.
    """
    asking = board.sources[number].health
    if asking.tier is Tier.LOCAL or not asking.goodput_bps:
        return False
    piece = max(board.work.size(item), most_bytes)
    free_bytes = max(piece, free_bytes)
    left = _left_bytes(claims)
    own_s = (left.get(number, 0.0) + piece) / asking.goodput_bps
    # All of them together, this one included, take at least so long: among forty peers that settles it nearly always.
    # (No less than its own, whatever rounding left of a sum of very large and very small rates.)
    if own_s <= free_bytes / max(rates.total_bps, asking.goodput_bps) + _MARGIN_S:
        return False
    others = [
        (left.get(other, 0.0), each.health.goodput_bps)
        for other, each in enumerate(board.sources)
        if other != number and each.health.goodput_bps and board.is_safe_home(each, item, now)
    ]
    if not others:
        return False
    # If bytes were a fluid: a bound that is cheap, and settles it for as long as there is much to do.
    fluid_s = (free_bytes + sum(size for size, _ in others)) / sum(bps for _, bps in others)
    if own_s <= fluid_s + _MARGIN_S:
        return False
    pieces = -(-free_bytes // piece)
    return pieces > _PLANNED_MAX + len(others) or own_s > _planned_s(others, pieces, piece) + _MARGIN_S


def _left_bytes(claims: Sequence[Claim]) -> dict[int, float]:
    """Bytes under way, by source."""
    left: dict[int, float] = {}
    for claim in claims:
        if not claim.cancelled and not claim.stream:
            left[claim.source] = left.get(claim.source, 0.0) + claim.size - claim.received_bytes
    return left


def _planned_s(others: Sequence[tuple[float, float]], pieces: int, piece_bytes: int) -> float:
    """When the last piece ends, if each goes to whoever would be first done with it: what lanes do."""
    plan = [((size + piece_bytes) / bps, bps) for size, bps in others]
    heapq.heapify(plan)
    end_s = 0.0
    for _ in range(pieces):
        end_s, bps = plan[0]
        heapq.heapreplace(plan, (end_s + piece_bytes / bps, bps))
    return end_s
