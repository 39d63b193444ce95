"""What a node says it fetches: its own wants, and those of a fetch beside it, which end by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from diachunk.digest import digest_of
from diachunk.node.model import Want
from diachunk.node.stock.wants import Wants

ONE, OTHER = digest_of(b"one"), digest_of(b"other")


def test_a_borrowed_want_ends_when_its_time_is_up() -> None:
    now = 50.0
    wants = Wants(lambda: now)
    wants.borrow(Want(ONE, ("model",), True), 60.0)
    assert wants.of(ONE) == Want(ONE, ("model",), True)
    assert [want.manifest_id for want in wants.all()] == [ONE]
    now = 60.0
    assert wants.of(ONE) is None
    assert wants.all() == []


def test_this_processs_own_want_goes_before_a_borrowed_one() -> None:
    wants = Wants(lambda: 0.0)
    wants.borrow(Want(ONE, ("model",), True), 10.0)
    wants.put(Want(ONE, ("vocoder",), False))
    wants.put(Want(OTHER, ("model",), False))
    assert [want.components for want in wants.all()] == [("vocoder",), ("model",)]
    wants.drop(ONE)
    assert wants.of(ONE) == Want(ONE, ("model",), True)


def test_what_is_borrowed_is_bounded() -> None:
    wants = Wants(lambda: 0.0)
    for number in range(1000):
        wants.borrow(Want(digest_of(b"%d" % number), ("model",), False), 10.0)
    assert len(wants.all()) == 64


def test_every_change_rings_and_nothing_else_does() -> None:
    async def heard() -> list[bool]:
        wants = Wants()
        found: list[bool] = []
        changes: tuple[Callable[[], object], ...] = (
            lambda: wants.put(Want(ONE, ("model",), False)),
            lambda: wants.put(Want(ONE, ("model",), False)),
            lambda: wants.taking(ONE, [(1, 2)]),
            lambda: wants.taking(OTHER, [(1, 2)]),
            lambda: wants.borrow(Want(OTHER, ("model",), True), wants.now() + 0.05),
            lambda: None,  # its time is up
            lambda: wants.drop(ONE),
            lambda: wants.drop(ONE),
        )
        for change in changes:
            waiting = asyncio.ensure_future(wants.changed.wait(0.5))
            await asyncio.sleep(0)
            change()
            found.append(await waiting)
        return found

    assert asyncio.run(heard()) == [True, False, True, False, True, True, True, False]
