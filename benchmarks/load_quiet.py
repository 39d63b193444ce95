"""Whether a run had the machine to itself. A load takes a tenth of a second on all cores: a neighbour on one of them
doubles that, and hits whoever happens to run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_SHARE_MAX = 0.06
"""Of the cores' time, taken by others meanwhile: with more of it a run is made again. On an idle machine 0.01-0.03."""
_AGAIN_MAX = 6
_PATIENCE_S = 20.0
_LOOK_S = 0.3


def busy_s() -> float | None:
    """CPU seconds that the whole machine has spent; None where the system does not say."""
    try:
        fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _, _, irq, soft, stolen = fields
    return (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")


class Watch:
    """From its making on."""

    def __init__(self) -> None:
        self._before, self._own_before_s, self._started_at = (
            busy_s(),
            time.process_time(),
            time.perf_counter(),
        )

    def others_share(self) -> float:
        """Of the cores' time, what anybody but this process took; 0 where the system does not say."""
        after, own_s = busy_s(), time.process_time() - self._own_before_s
        wall_s = time.perf_counter() - self._started_at
        if self._before is None or after is None:
            return 0.0
        return max(0.0, (after - self._before - own_s) / (wall_s * (os.cpu_count() or 1)))


def undisturbed(run: Callable[[], Result], others_share: Callable[[Result], float]) -> tuple[Result, int]:
    """The result of a run during which others left the cores alone, as it says itself, and how many had to be thrown
    away for that. After a few the last one counts, whatever it was.
    """
    for again in range(_AGAIN_MAX):
        _wait_until_idle()
        result = run()
        if others_share(result) <= _SHARE_MAX:
            return result, again
    return result, _AGAIN_MAX


def _wait_until_idle() -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        before = busy_s()
        time.sleep(_LOOK_S)
        after = busy_s()
        if before is None or after is None or after - before <= 0.1 * _LOOK_S * (os.cpu_count() or 1):
            return
