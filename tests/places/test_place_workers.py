"""Reading several files at once, and stopping."""

from __future__ import annotations

import threading
import time

import pytest

from diachunk.places.workers import Teller, at_once

_PATIENCE_S = 30.0


def read_until_stopped(ended: threading.Event, tell: Teller) -> None:
    try:
        until_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until_s:
            tell("model", 1)
            time.sleep(0.001)
    finally:
        ended.set()


def test_results_come_in_order_and_what_is_read_is_told() -> None:
    told: list[tuple[str, int]] = []

    def work(item: int, tell: Teller) -> int:
        time.sleep(0.01 * (3 - item))
        tell("model", item)
        return item * item

    assert at_once(work, [1, 2, 3], lambda *each: told.append(each)) == [1, 4, 9]
    assert sorted(told) == [("model", 1), ("model", 2), ("model", 3)]
    assert at_once(work, [], lambda *each: None) == []


def test_the_first_failure_ends_the_others() -> None:
    ended = threading.Event()

    def work(item: int, tell: Teller) -> None:
        if item == 0:
            raise ValueError("damaged")
        read_until_stopped(ended, tell)

    started_at = time.monotonic()
    with pytest.raises(ValueError, match="damaged"):
        at_once(work, [0, 1], lambda *each: None)
    assert time.monotonic() - started_at < _PATIENCE_S / 2


def test_an_interruption_while_a_thread_starts_ends_that_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, started = threading.Event(), threading.Event()
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        real(self)
        if self.name.startswith("diachunk-hash"):
            started.wait(_PATIENCE_S)
            raise KeyboardInterrupt

    def work(item: int, tell: Teller) -> None:
        started.set()
        read_until_stopped(ended, tell)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        at_once(work, [1], lambda *each: None)
    assert ended.wait(_PATIENCE_S / 3), "it reads on although nobody waits for it"
