"""One digest in many places, and kills at any moment: nothing is fetched again but what was under way."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

import diachunk
from diachunk.testing.checkpoint import TensorSpec, write_safetensors
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right, published, tree
from fixtures.crowd import Neighbour
from fixtures.nursery import Nursery, right_chunks
from fixtures.process import FetchProcess
from fixtures.settings import write_config
from fixtures.watch import fetch

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(300)]

LANES = 2
UNDER_WAY_BYTES = LANES * 4 * MIB
"""What a kill may cost: each lane moves at most 4 MiB at a time."""
LONG = bool(os.environ.get("DIACHUNK_LONG"))
KILLS = 200 if LONG else 25
CAP_BPS = 60 * MIB
_DIE_AFTER_WRITES = """
import os, signal, sys
import diachunk
from diachunk.store.partial import Partial

target, origin, home, left = sys.argv[1:4] + [int(sys.argv[4])]
write = Partial.write

def write_and_die(self, chunk, offset):
    global left
    write(self, chunk, offset)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

Partial.write = write_and_die
diachunk.fetch(target, origins=[origin], home=home)
"""


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """67 MB in 6 files, 21 MB of them distinct: one block in 7 places of 4 files, one tensor 20 times in one."""
    root = tmp_path_factory.mktemp("repeated") / "served"
    block, other, *own = (os.urandom(4 * MIB) for _ in range(5))
    tail = os.urandom(123_456)
    files = {
        "model/one.bin": block + own[0] + block + block + tail,
        "model/two.bin": own[1] + block + other + tail,
        "model/twin.bin": own[1] + block + other + tail,
        "vocoder/three.bin": block + other + own[2] + block + tail,
        "vocoder/tail.bin": tail,
    }
    tree(root, files)
    same = [TensorSpec(f"layer.{number}.scale", "F32", (300, 300), source="scale") for number in range(20)]
    write_safetensors(root / "vocoder" / "model.safetensors", same, seed="same")
    return published(root, "lab/repeated")


@pytest.fixture(autouse=True)
def few_lanes(base: Path) -> None:
    write_config(base, {"lanes": LANES, "hedge_chunks_min": 1})


def distinct_bytes(checkpoint: Checkpoint) -> int:
    return sum(
        {digest: size for _, file in checkpoint.manifest.walk() for size, digest in file.chunks}.values()
    )


def test_each_digest_is_fetched_once_and_put_in_all_its_places(repeated: Checkpoint, home: Path) -> None:
    with Nginx(repeated.root) as origin:
        done = fetch(repeated, origin.url, home=home)
        assert origin.bytes_sent() == distinct_bytes(repeated) < 0.5 * repeated.total_bytes
    assert_same_files(done.snapshot.directory, repeated)
    assert_store_is_right(home)


@pytest.mark.parametrize("writes", [1, 2, 3, 6, 10, 20])
def test_a_kill_between_two_places_of_one_digest_costs_what_was_under_way(
    repeated: Checkpoint, home: Path, writes: int
) -> None:
    with Nginx(repeated.root) as origin:
        words = [repeated.target, origin.url, str(home), str(writes)]
        with Neighbour(_DIE_AFTER_WRITES, words) as process:
            assert process.end().code == -signal.SIGKILL
        assert right_chunks(home, repeated)
        done = fetch(repeated, origin.url, home=home)
        assert origin.bytes_sent() <= distinct_bytes(repeated) + UNDER_WAY_BYTES
    assert_same_files(done.snapshot.directory, repeated)
    assert_store_is_right(home)


@pytest.mark.parametrize("share", [0.3, 0.7])
@pytest.mark.parametrize("into", ["store", "directory"])
def test_killed_half_way_the_rest_is_fetched_and_no_more(
    repeated: Checkpoint, home: Path, tmp_path: Path, share: float, into: str
) -> None:
    to = tmp_path / "out" if into == "directory" else None
    with Nginx(repeated.root, rate_bps=20 * MIB) as origin:
        with FetchProcess(repeated.target, origin.url, home, to) as process:
            process.wait_for_bytes(int(share * repeated.total_bytes))
            process.signal(signal.SIGKILL)
        done = diachunk.fetch(repeated.target, origins=[origin.url], home=home, to=to)
        assert origin.bytes_sent() <= distinct_bytes(repeated) + UNDER_WAY_BYTES
    assert_same_files(done.directory, repeated)


def test_what_a_killed_fetch_of_one_component_left_serves_the_others_too(
    repeated: Checkpoint, home: Path
) -> None:
    class Enough(Exception):
        pass

    def stop(event: diachunk.Event) -> None:
        if isinstance(event, diachunk.FileDone) and event.path != "three.bin":
            raise Enough

    with Nginx(repeated.root) as origin:
        with pytest.raises(Enough):
            diachunk.fetch(
                repeated.target, origins=[origin.url], home=home, components=["vocoder"], progress=stop
            )
        held = right_chunks(home, repeated)
        assert held
        before = origin.bytes_sent()
        done = diachunk.fetch(repeated.target, origins=[origin.url], home=home)
        assert origin.bytes_sent() - before <= distinct_bytes(repeated) - sum(held.values())
    assert_same_files(done.directory, repeated)
    assert_store_is_right(home)


# --- kills at random moments -------------------------------------------------------------------------------


def kill_until_done(nursery: Nursery, checkpoint: Checkpoint, home: Path, moments: random.Random) -> int:
    """Fetches, killed again and again at random moments, until one comes to its end; returns the kills."""
    kills, idle, longest_s = 0, 0, 0.25
    held: dict[bytes, int] = {}
    with Nginx(checkpoint.root) as origin:
        sent = 0
        while True:
            after_s = moments.uniform(0, longest_s)
            code = nursery.fetch(checkpoint.target, origin.url, home, kill_after_s=after_s, bps=CAP_BPS)
            before, sent = sent, origin.bytes_sent()
            there = right_chunks(home, checkpoint)
            assert held.keys() <= there.keys(), "what was verified is lost"
            gained = sum(there.values()) - sum(held.values())
            assert sent - before <= gained + UNDER_WAY_BYTES, (kills, after_s)
            held = there
            if code == 0:
                return kills
            kills += 1
            assert sent <= sum(held.values()) + kills * UNDER_WAY_BYTES
            # however slow the machine is, some run gets far enough to bring something
            idle = 0 if gained else idle + 1
            if idle == 4:
                idle, longest_s = 0, longest_s * 1.5


@pytest.mark.timeout(0 if LONG else 300)
def test_kills_at_random_moments_cost_what_was_under_way_and_end_right(
    repeated: Checkpoint, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"moments: random.Random({seed})")
    moments, kills, chains = random.Random(seed), 0, 0
    with Nursery(tmp_path / "log") as nursery:
        while kills < KILLS:
            home = tmp_path / f"store-{chains}"
            kills += kill_until_done(nursery, repeated, home, moments)
            chains += 1
            assert_store_is_right(home)
            assert_same_files(diachunk.fetch(repeated.target, home=home).directory, repeated)
            assert diachunk.verify(home=home).ok
