"""What threads found reaches the loop's thread: in order, in few calls, and nothing of it is lost."""

from __future__ import annotations

from collections.abc import Callable

from diachunk.node.stock.inbox import Inbox


class Loop:
    """Calls are kept until `run`."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call(self, what: Callable[[], None]) -> None:
        self.calls.append(what)

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for each in calls:
            each()


def test_items_come_in_order_and_in_one_call() -> None:
    loop, taken = Loop(), list[int]()
    inbox = Inbox(loop.call, taken.append)
    for number in range(5):
        inbox.put(number)
    assert len(loop.calls) == 1
    assert taken == []
    loop.run()
    assert taken == [0, 1, 2, 3, 4]
    inbox.put(5)
    loop.run()
    assert taken[-1] == 5


def test_what_comes_while_it_is_emptied_is_not_left() -> None:
    loop, taken = Loop(), list[int]()

    def take(item: int) -> None:
        taken.append(item)
        if item < 3:
            inbox.put(item + 1)

    inbox = Inbox(loop.call, take)
    inbox.put(0)
    loop.run()
    loop.run()
    assert taken == [0, 1, 2, 3]


def test_what_cannot_be_taken_yet_keeps_its_place() -> None:
    loop, taken, refused = Loop(), list[int](), {1}

    def take(item: int) -> bool:
        if item in refused:
            return False
        taken.append(item)
        return True

    inbox = Inbox(loop.call, take)
    for number in range(3):
        inbox.put(number)
    loop.run()
    assert taken == [0]
    inbox.put(3)
    loop.run()
    assert taken == [0]
    refused.clear()
    inbox.drain()
    assert taken == [0, 1, 2, 3]
