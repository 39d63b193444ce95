"""Who was not let in, for the log: each once for each reason, then how often, now and then. P11 to P13."""

from __future__ import annotations

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

AGAIN_S = 600.0
"""Who goes on asking is in the log so often."""
NAMED_MAX = 256
"""Clients and reasons that are told apart within that time; of all others there is one line. Whoever has a network of
addresses may knock from each.
"""
_LOG = logging.getLogger("diachunk.node")
_NUMBER = re.compile(r"\d+")


@dataclass(slots=True)
class _Told:
    """When a line was written, and how often it would have been since."""

    at: float
    more: int = 0

    def again(self, now: float) -> str:
        """How often and in what time, in words; starts anew."""
        words = f"{self.more:,} more times in {(now - self.at) / 60:.0f} min"
        self.at, self.more = now, 0
        return words


class Refusals:
    """Used on the node's loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], _Told] = OrderedDict()
        self._others: _Told | None = None

    @property
    def remembered(self) -> int:
        """How many clients and reasons."""
        return len(self._told)

    def note(self, host: str, why: str) -> None:
        """Somebody was refused.

        Args:
            host: its address.
            why: in words for the log; figures in them make no other reason.
        """
        now, key = self._clock(), (host, _NUMBER.sub("", why))
        told = self._told.get(key)
        if told is None:
            if self._has_room(now):
                self._told[key] = _Told(now)
                _LOG.info("refused %s: %s", host, why)
            else:
                self._note_other(now)
            return
        told.more += 1
        if now - told.at >= AGAIN_S:
            self._told.move_to_end(key)
            _LOG.info("refused %s, %s: %s", host, told.again(now), why)

    def _has_room(self, now: float) -> bool:
        """Forgets, where there is none, who was told of the longest ago, if that is long enough."""
        if len(self._told) < NAMED_MAX:
            return True
        if now - next(iter(self._told.values())).at < AGAIN_S:
            return False
        self._told.popitem(last=False)
        return True

    def _note_other(self, now: float) -> None:
        if self._others is None:
            self._others = _Told(now)
            _LOG.info("refused others, too: more than are named here")
            return
        self._others.more += 1
        if now - self._others.at >= AGAIN_S:
            _LOG.info("refused others, %s", self._others.again(now))
