"""What Ctrl-C and its like do to a verb: the first ends it in order, the next at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from diachunk.cli.talk import JSON_VERSION
from diachunk.errors import Interrupted

_ONE_STOP_S = 0.5
"""A terminal sends SIGINT to all of a group, and what started us (npx, uv run) passes it on: both are one stop. A
closed terminal sends SIGHUP, its shell another."""
_SHOW_CURSOR = b"\x1b[?25h"
_MESSAGE = "stopped at once, without waiting for what was under way"
_HINT = "what is verified is kept"


def stop_on_signals(*, as_json: bool) -> None:
    """SIGTERM and a closed terminal stop as Ctrl-C does. What `nohup` made ignored stays ignored.

    Args:
        as_json: tells of a stop at once as an event on stdout, in place of a line on stderr.
    """
    stopping = Stopping(as_json=as_json)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name)
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, stopping)


class Stopping:
    """A handler of signals: KeyboardInterrupt, and at the next signal the end of the process.

    The orderly end may take a while: a disk flushes, a server is asked to let go, uploads under way have seconds.
    It saves work and no more: whoever will not wait loses nothing that a kill would not lose.
    """

    def __init__(self, *, as_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._as_json = as_json
        self._clock = clock
        self._stopped_at: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        if self._stopped_at is None:
            self._stopped_at = now
            raise KeyboardInterrupt
        if now - self._stopped_at >= _ONE_STOP_S:
            self._end_at_once()

    def _end_at_once(self) -> None:
        # signal(7): this runs between any two instructions of ours, also while a lock of stdout or stderr is held.
        if self._as_json:
            told = {"v": JSON_VERSION, "event": "error", "message": _MESSAGE, "hint": _HINT}
            line = json.dumps({**told, "exit_code": Interrupted.exit_code}, separators=(",", ":"))
            _write(1, f"{line}\n".encode())
        else:
            # The live picture hid it; nobody else is left to show it again.
            cursor = _SHOW_CURSOR if sys.stderr is not None and os.isatty(2) else b""
            _write(2, cursor + f"diachunk: {_MESSAGE}; {_HINT}\n".encode())
        os._exit(Interrupted.exit_code)


def _write(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        return
