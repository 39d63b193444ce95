"""What other threads found, brought to the loop: one call across for however much came since the last one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """`put` may be called from any thread, all else on the loop's."""

    def __init__(
        self, call: Callable[[Callable[[], None]], None], take: Callable[[Item], bool | None]
    ) -> None:
        """Args:
        call: runs something on the loop's thread.
        take: gets each item, in order; False: not yet, it and what came after it stay until the next `drain`.
        """
        self._call = call
        self._take = take
        self._items: deque[Item] = deque()
        self._due = False

    def put(self, item: Item) -> None:
        self._items.append(item)
        if not self._due:
            self._due = True
            self._call(self.drain)

    def drain(self) -> None:
        self._due = False  # first: what comes from here on asks again
        while self._items:
            item = self._items.popleft()
            if self._take(item) is False:
                self._items.appendleft(item)
                return
