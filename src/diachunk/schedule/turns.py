"""Which peer is asked next: one with the fewest requests under way, of those the fastest, of those any. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from diachunk.schedule.health import Health, Rng


class Turns:
    """Peers in the order in which they are asked. Two change places with each chunk, where sorting would look at all.

    Among equals (all that brought nothing yet, say) each stands anywhere, and elsewhere on every machine.
    """

    __slots__ = ("_order", "_places", "_rng")

    def __init__(self, rng: Rng) -> None:
        self._rng = rng
        self._order: list[tuple[int, float, float, int]] = []
        self._places: dict[int, tuple[int, float, float, int]] = {}

    def place(self, number: int, health: Health) -> None:
        """This peer is new, or its health is not what it was."""
        old = self._places.get(number)
        if old is not None:
            del self._order[bisect_left(self._order, old)]
        place = (health.in_flight, -(health.request_bps or float("inf")), self._rng.random(), number)
        self._places[number] = place
        insort(self._order, place)

    def __iter__(self) -> Iterator[int]:
        return (place[3] for place in self._order)
