"""Who takes part in single flight. See schedule/feeders.py. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A node that fetches the same manifest and shares.

    Attributes:
        address: as the others know it ("10.0.0.7:8420"); one member an address.
        components: which it wants.
        feeds: whether it has an origin to ask.
    """

    address: str
    components: frozenset[str]
    feeds: bool
