"""What a node's log says of those that it does not let in: each once, then a count now and then, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.node.guard import Guard
from diachunk.node.serving.refusals import AGAIN_S, NAMED_MAX, Refusals
from diachunk.sources.secret import Secret
from diachunk.store.store import Store
from fixtures.served import Served

SECRET = Secret(b"a secret of the lab, long enough")
WHY = "this address may not ask; see --allow"


class Hour:
    """A clock."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What was logged, as it comes."""
    found: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger = logging.getLogger("diachunk.node")
    before, handler = logger.level, Keeping()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


def test_each_client_is_named_once_for_each_reason(lines: list[str]) -> None:
    refusals = Refusals(Hour())
    for _ in range(50):
        refusals.note("10.0.0.1", WHY)
        refusals.note("10.0.0.2", WHY)
        refusals.note("10.0.0.2", "pages of other sites may not ask")
    assert lines == [
        f"refused 10.0.0.1: {WHY}",
        f"refused 10.0.0.2: {WHY}",
        "refused 10.0.0.2: pages of other sites may not ask",
    ]


def test_who_goes_on_is_counted_now_and_then(lines: list[str]) -> None:
    hour = Hour()
    refusals = Refusals(hour)
    for _ in range(1201):
        refusals.note("10.0.0.1", WHY)
    hour.now += AGAIN_S
    refusals.note("10.0.0.1", WHY)
    refusals.note("10.0.0.1", WHY)
    hour.now += 3 * AGAIN_S
    refusals.note("10.0.0.1", WHY)
    assert lines == [
        f"refused 10.0.0.1: {WHY}",
        f"refused 10.0.0.1, 1,201 more times in 10 min: {WHY}",
        f"refused 10.0.0.1, 2 more times in 30 min: {WHY}",
    ]


def test_a_clock_that_is_wrong_by_more_each_minute_is_one_reason(lines: list[str]) -> None:
    refusals = Refusals(Hour())
    for minutes in range(11, 60):
        refusals.note("10.0.0.1", f"its clock is {minutes} min behind")
    assert lines == ["refused 10.0.0.1: its clock is 11 min behind"]


def test_any_number_of_clients_takes_a_bounded_log_and_memory(lines: list[str]) -> None:
    hour = Hour()
    refusals = Refusals(hour)
    for number in range(NAMED_MAX + 5000):
        refusals.note(f"2001:db8::{number:x}", WHY)
    assert len(lines) == NAMED_MAX + 1
    assert lines[-1] == "refused others, too: more than are named here"
    hour.now += AGAIN_S
    for number in range(NAMED_MAX):
        refusals.note(f"10.0.{number // 256}.{number % 256}", WHY)
    refusals.note("10.9.9.9", WHY)
    assert len(lines) == 2 * NAMED_MAX + 2
    assert lines[-1] == "refused others, 5,000 more times in 10 min"
    assert refusals.remembered == NAMED_MAX


@pytest.mark.parametrize(
    ("guard", "line"),
    [
        (Guard(secret=SECRET), "refused 127.0.0.1: the lab's secret is needed (it shows none)"),
        (Guard(near=lambda ip: False), f"refused 127.0.0.1: {WHY}"),
    ],
)
def test_a_client_that_asks_again_and_again_is_one_line(
    tmp_path: Path, lines: list[str], guard: Guard, line: str
) -> None:
    with Served(Store.open(tmp_path / "store"), guard=guard) as served:
        for _ in range(20):
            assert served.ask("/v1/node")[0] in (401, 403)
    assert [each for each in lines if "refused" in each] == [line]
