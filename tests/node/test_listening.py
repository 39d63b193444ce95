"""Whom a node listens to, when there are more than it may listen to."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from diachunk.digest import digest_of
from diachunk.limits import Limits
from diachunk.manifest import Manifest
from diachunk.node.around import listening
from diachunk.node.around.answers import NodeFacts
from diachunk.node.around.listening import Listening
from diachunk.node.around.neighbours import Neighbour
from diachunk.node.around.roster import How
from diachunk.node.model import Address, Want
from diachunk.schedule.feeders import hash_of


class _Silent:
    """A subscription that says nothing."""

    def __init__(self, neighbour: Neighbour, *rest: Any, **options: Any) -> None:
        self.address, self.neighbour = neighbour.address, neighbour
        self.has = self.wants = None
        self.ended = self.by_chunks = False
        self.failures = 0
        self.since_s = 0.0
        self.complete = False

    def start(self) -> None:
        return

    def stop(self) -> None:
        return


def around(count: int, manifest: Manifest, *, named: int = -1) -> Any:
    """So many machines that fetch the same, each with an origin."""
    addresses = [Address(f"10.0.0.{number}", 8420) for number in range(1, count + 1)]
    known = SimpleNamespace(wants=(Want(manifest.id, ("model",), True),))
    return SimpleNamespace(
        limits=Limits(neighbours_max=20, feeders=4),
        neighbours={
            each: Neighbour(each, NodeFacts(digest_of(str(each).encode()).hex()[:32], "s", "", False, ()))
            for each in addresses
        },
        roster=SimpleNamespace(get=lambda address: known),
        talker=None,
        how=lambda address: How.NAMED if address == addresses[named] and named >= 0 else How.MDNS,
    )


def chosen(count: int, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, **options: Any) -> set[Address]:
    monkeypatch.setattr(listening, "Subscription", _Silent)

    async def choose() -> set[Address]:
        one = Listening(manifest, around(count, manifest, **options), None, lambda address: None)  # type: ignore[arg-type]
        one.choose(4)
        first = set(one.to)
        one.choose(4)
        assert set(one.to) == first  # nobody is dropped for nothing
        return first

    return asyncio.run(choose())


def test_all_listen_to_the_feeders_and_each_to_others_of_its_own(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = [chosen(100, manifest, monkeypatch) for _ in range(100)]
    listeners = Counter(address for each in choices for address in each)
    everybody = sorted(around(100, manifest).neighbours, key=lambda each: hash_of(manifest.id, str(each)))
    assert [listeners[each] for each in everybody[:4]] == [100] * 4
    assert {len(each) for each in choices} == {20}
    others = [listeners[each] for each in everybody[4:]]
    assert min(others) > 0  # nobody is left out: 17 listen to each on average
    assert max(others) < 50


def test_who_was_named_is_always_among_them(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        assert Address("10.0.0.50", 8420) in chosen(100, manifest, monkeypatch, named=49)
