"""Many sources of which few may work: who is asked next, who is kept waiting, who is cut short. Pure."""

from __future__ import annotations

from diachunk.limits import Limits
from diachunk.schedule.board import Board
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Health, Tier

_FIRST_BYTE_LEAST_S = 0.5
_QUEUES_S = 0.15
"""How long a request waits for its turn at a peer while another could serve us."""


def ready_sources(board: Board, limits: Limits, free_items: int, now: float) -> list[int]:
    """Sources (but no peers) that may start a request: local ones, those with the fewest under way, then the fastest.

    While a proven source is alive, unproven ones take at most a quarter of the lanes; until one is, and
    for the last few items, those that failed least go first: a crowd of dead origins must not keep the
    good one waiting, nor hand the last item round among themselves. And while the network has something to
    bring, reading what is here takes at most half of the lanes: a resume must not first hash all it has.
    """
    sources = board.sources
    ready = [number for number, each in board.plain if each.health.ready(now)]
    if _local_share_is_used_up(board, limits, ready, now):
        ready = [number for number in ready if sources[number].health.tier is Tier.NETWORK]
    network = [each.health for _, each in board.plain if each.health.tier is Tier.NETWORK]
    proven = any(each.request_bps and each.usable(now) for each in network)
    if proven:
        probing = sum(each.in_flight for each in network if not each.request_bps)
        if probing >= max(1, limits.lanes // 4):
            ready = [n for n in ready if sources[n].health.request_bps or not sources[n].health.tier]

    plenty = proven and free_items > limits.lanes

    return sorted(ready, key=lambda number: rank(sources[number].health, spare_faulty=not plenty))


def rank(health: Health, *, spare_faulty: bool = False) -> tuple[int, int, int, float]:
    """Whom to ask first: the lowest."""
    faults = health.faults_in_a_row if spare_faulty else 0
    return health.tier, faults, health.in_flight, -(health.request_bps or float("inf"))


def _local_share_is_used_up(board: Board, limits: Limits, ready: list[int], now: float) -> bool:
    reading = sum(each.health.in_flight for _, each in board.plain if each.health.tier is Tier.LOCAL)
    if reading < max(1, limits.lanes // 2):
        return False
    network = [board.sources[number] for number in ready] + [
        each for each in board.sources if each.health.peer and each.health.ready(now)
    ]
    return any(each.health.tier is Tier.NETWORK and board.has_work(each) for each in network)


def spared(board: Board, health: Health, item: int, now: float) -> bool:
    """Whether an item that came back once is kept from a source that may well be dead.

    Otherwise a few of those could pass the last items on among themselves for ever.
    """
    if item not in board.returned or health.tier is not Tier.NETWORK:
        return False
    if health.peer:
        # It answers, or it would be no peer; and an origin is no home for what single flight leaves to peers.
        return bool(health.faults_in_a_row) and any(
            each.health.peer and board.is_safe_home(each, item, now) for each in board.sources
        )
    return bool(health.faults_in_a_row or not health.request_bps) and board.has_safe_home(item, now)


def overdue(board: Board, limits: Limits, claim: Claim, now: float) -> bool:
    """Whether an unproven source keeps others waiting for its first byte: sources that were never tried,
    or, at the end, the items themselves, which a proven source could bring.

    Among fifty origins of which one works, that one must not come after fifty stalls.
    """
    health = board.sources[claim.source].health
    elapsed = now - claim.started_at
    if health.peer:
        return _queues(board, claim, elapsed, now)
    if health.request_bps or health.tier is Tier.LOCAL or elapsed < _FIRST_BYTE_LEAST_S:
        return False
    dripping = claim.received_bytes < limits.min_rate_bps * elapsed
    if not dripping and now - claim.last_byte_at < limits.first_byte_s:
        return False
    if board.all_assigned:
        return elapsed >= limits.first_byte_s and board.has_safe_home(claim.run.first, now)
    waiting = sum(
        not each.health.requests and not each.health.out and board.next_item(each) is not None
        for _, each in board.plain
    )
    # The more of them wait, the sooner it is the next one's turn: those that were only slow come again.
    patience_s = limits.first_byte_s / (1 + waiting // limits.lanes)
    return waiting > 0 and elapsed >= max(patience_s, _FIRST_BYTE_LEAST_S)


def _queues(board: Board, claim: Claim, elapsed_s: float, now: float) -> bool:
    """Whether a request waits for its turn at a peer while another could serve us.

    Simulated: lanes that wait in queues while other machines have nothing to send are what a swarm loses most by.
    """
    if claim.received_bytes or elapsed_s < _QUEUES_S:
        return False
    return any(
        each.held is not None
        and each.health.ready(now)
        and (board.has_work(each) or (not each.health.in_flight and claim.run.first in each.held))
        for each in board.sources
    )
