"""What a chunk costs the schedule beside forty peers whose bitmaps change all the time."""

from __future__ import annotations

import os
import random
import time
from array import array

import pytest

from diachunk.bitmap import Bitmap
from diachunk.limits import CHUNK_BYTES, DEFAULT
from diachunk.manifest.model import ChunkList
from diachunk.schedule.claims import Claim
from diachunk.schedule.health import Tier
from diachunk.schedule.members import Member
from diachunk.schedule.schedule import Schedule
from diachunk.schedule.work import BlobFacts, WorkList

_PEERS = 40
_CHUNKS = 800
_LANES = 4
_BOUND_US = 400.0
"""The target is 50 on a quiet machine; this is for one on which ten others compute."""


def _work(items: int) -> WorkList:
    chunks = ChunkList(os.urandom(32 * items), array("I", [CHUNK_BYTES]) * items)
    return WorkList([BlobFacts(b"x" * 32, items * CHUNK_BYTES, chunks, "model", "weights")])


def cost_us(items: int, *, members: bool) -> float:
    """Microseconds of processor a chunk: its claim, its end, and what peers gained meanwhile (four or five chunks)."""
    now = [0.0]
    rng = random.Random(2)
    work = _work(items)
    schedule = Schedule(work, DEFAULT, lambda: now[0], rng, key=b"k" * 32)
    schedule.add("origin", Tier.NETWORK)
    schedule.expects_more = True
    peers = [
        schedule.add_peer(f"10.0.0.{number}:8420", Bitmap(items, rng.choices(range(items), k=items // 4)))
        for number in range(_PEERS)
    ]
    if members:
        others = [Member(f"10.0.0.{number}:8420", frozenset({"model"}), True) for number in range(_PEERS)]
        schedule.members("10.0.1.1:8420", others)
    spent_s, done = 0.0, 0
    for _ in range(_CHUNKS):
        now[0] += 0.05
        news = [(rng.choice(peers), [rng.randrange(items) for _ in range(3)]) for _ in range(6)]
        started_s = time.process_time()
        for peer, gained in news:
            schedule.peer_gains(peer, gained)
        claims = [step for _ in range(_LANES) if isinstance(step := schedule.claim(), Claim)]
        for claim in claims:
            schedule.received(claim, claim.size, now[0])
            for item in claim.run.items:
                schedule.verified(claim, item)
        now[0] += 0.3
        for claim in claims:
            schedule.finish(claim)
        spent_s += time.process_time() - started_s
        done += len(claims)
        if done >= _CHUNKS:
            break
    assert done >= min(_CHUNKS, items) // 2
    return spent_s / done * 1e6


@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize("items", [1_600, 50_000])
def test_a_chunk_costs_microseconds_beside_forty_peers(items: int, members: bool) -> None:
    assert cost_us(items, members=members) < _BOUND_US


if __name__ == "__main__":
    for count in (1_600, 250_000):
        for among in (False, True):
            best = min(cost_us(count, members=among) for _ in range(5))
            print(f"{count:,} chunks, {'members' if among else 'peers alone'}: {best:.0f} us a chunk")
