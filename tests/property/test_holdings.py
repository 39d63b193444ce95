"""Counts in bit planes against counting: who holds what, and what is rarest."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from diachunk.bitmap import Bitmap
from diachunk.schedule.holdings import BLOCK, Holdings


@given(st.data())
def test_the_rarest_of_what_a_peer_holds_is_what_counting_says(data: st.DataObject) -> None:
    items = data.draw(st.sampled_from([1, 7, 40, BLOCK + 3]))
    some = st.sets(st.integers(0, items - 1), max_size=30)
    holdings = Holdings(bytearray(items), random.Random(1))
    free = set(range(items))
    peers = [holdings.join() for _ in range(data.draw(st.integers(1, 6)))]
    held: list[set[int]] = [set() for _ in peers]
    for _ in range(data.draw(st.integers(1, 20))):
        which = data.draw(st.integers(0, len(peers) - 1))
        chosen = data.draw(some)
        match data.draw(st.sampled_from(["gain", "replace", "lose", "taken", "freed"])):
            case "gain":
                for item in chosen:
                    fresh = not any(item in each for each in held)
                    assert holdings.gain(peers[which], item) == fresh
                held[which] |= chosen
            case "replace":
                holdings.replace(peers[which], Bitmap(items, chosen))
                held[which] = set(chosen)
            case "lose":
                for item in chosen:
                    holdings.lose(peers[which], item)
                held[which] -= chosen
            case "taken":
                for item in chosen:
                    holdings.taken(item)
                free -= chosen
            case _:
                for item in chosen:
                    holdings.freed(item)
                free |= chosen
        counts = {item: sum(item in each for each in held) for item in range(items)}
        unheld = [item for item in sorted(free) if not counts[item]]
        assert holdings.next_unheld(0) == (unheld[0] if unheld else -1)
        assert holdings.last_unheld(items) == (unheld[-1] if unheld else -1)
        for peer, has in zip(peers, held, strict=True):
            assert holdings.has_work(peer) == bool(has & free)
            rarest = holdings.rarest(peer)
            least = min((counts[item] for item in has & free), default=None)
            assert (rarest is None) == (least is None)
            if rarest is not None:
                assert rarest in has & free
                assert holdings.count(rarest) == counts[rarest] == least
