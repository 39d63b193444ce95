"""A matrix of bad lines before a real server: alone, beside a good origin, two of a kind. Right bytes, in time.

The bounds on time are wide: what they tell apart is an end from a hang, and going on from starting over.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from diachunk.testing.fault_proxy import FaultProxy
from diachunk.testing.lines import DEAD, Break, How, Line, Script, flapping, steady
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import MIB, Checkpoint, assert_same_files, assert_store_is_right
from fixtures.watch import Watched, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

CHUNK_BYTES = 4 * MIB
PATIENCE_S = 20.0
BOUND_S = 25.0
_RATE_BPS = 32 * MIB
"""So that a fetch lasts some seconds, of which a line has time to be bad."""


@dataclass(frozen=True, slots=True)
class Bad:
    """A kind of line, and how many chunks each connection that it breaks may have brought in vain."""

    script: Script
    chunks_a_break: int = 0


LINES: dict[str, Bad] = {
    "slow": Bad(steady(Line(down_bps=20 * MIB))),
    "laggy": Bad(steady(Line(down_bps=_RATE_BPS, latency_s=0.07))),
    "jittery": Bad(steady(Line(down_bps=_RATE_BPS, latency_s=0.01, jitter_s=0.06))),
    # a reset loses what the kernel had not passed on, and what is left of an attempt that brought next to nothing
    "cutting": Bad(steady(Line(_RATE_BPS, breaks=Break(How.RESET, (MIB // 4, 6 * MIB)))), 1),
    "blackholing": Bad(steady(Line(_RATE_BPS, breaks=Break(How.HANG, (5 * MIB, 15 * MIB)))), 1),
    "flapping": Bad(flapping(Line(down_bps=_RATE_BPS), DEAD), 1),
}


def assert_cheap(small: Checkpoint, name: str, carried_bytes: int, broken: int) -> None:
    """What crossed the network is what was wanted, and little more."""
    extra = (2 + LINES[name].chunks_a_break * broken) * CHUNK_BYTES
    assert carried_bytes <= 1.15 * small.total_bytes + extra


def checked(small: Checkpoint, home: Path, *origins: str) -> Watched:
    started_at = time.monotonic()
    done = fetch(small, *origins, home=home, patience_s=PATIENCE_S)
    assert time.monotonic() - started_at < BOUND_S
    assert_same_files(done.snapshot.directory, small)
    assert_store_is_right(home)
    assert all(not each.bad_chunks and not each.out for each in done.report.sources)
    return done


@contextlib.contextmanager
def bad_lines(small: Checkpoint, name: str, count: int) -> Iterator[list[FaultProxy]]:
    """So many lines of this kind to one server."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Nginx(small.root))
        yield [
            stack.enter_context(FaultProxy(server.url, LINES[name].script, seed=number))
            for number in range(count)
        ]


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("count", [1, 2])
def test_bad_lines_alone_bring_everything(small: Checkpoint, home: Path, name: str, count: int) -> None:
    with bad_lines(small, name, count) as proxies:
        checked(small, home, *(each.url for each in proxies))
        broken = sum(each.broken for each in proxies)
        assert_cheap(small, name, sum(each.down_bytes for each in proxies), broken)
    assert broken or name != "cutting", "the line was to break"


@pytest.mark.parametrize("name", LINES)
def test_a_bad_line_beside_a_good_origin_costs_little(small: Checkpoint, home: Path, name: str) -> None:
    with (
        bad_lines(small, name, 1) as (bad,),
        Nginx(small.root) as server,
        FaultProxy(server.url, Line(down_bps=_RATE_BPS)) as good,
    ):
        checked(small, home, bad.url, good.url)
        assert good.down_bytes > 0
        assert_cheap(small, name, bad.down_bytes + good.down_bytes, bad.broken)
