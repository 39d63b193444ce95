"""What a service manager is told, in the protocol of sd_notify(3): one datagram a message, no library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_LINE_CHARS_MAX = 200


class ServiceManager:
    """Whoever started this process and wants to hear of it; nobody, most of the time: then all does nothing.

    Attributes:
        watchdog_s: how often at the latest it wants to hear that all is well; None: not at all.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the leading NUL of Linux's abstract names.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        if not name.startswith(("@", "/")):
            self._address = ""
        self.watchdog_s = self._watchdog_s(environment)

    @staticmethod
    def _watchdog_s(environment: Mapping[str, str]) -> float | None:
        """Half of the time after which it takes us for hung, as sd_watchdog_enabled(3) advises."""
        text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        if not text.isascii() or not text.isdigit() or len(text) > 15 or pid not in ("", str(os.getpid())):
            return None
        return int(text) / 2e6 or None

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={_line(status)}\nMAINPID={os.getpid()}")

    def status(self, text: str) -> None:
        self._send(f"STATUS={_line(text)}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=stopping")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
                one.setblocking(False)
                one.sendto(message.encode(), self._address)
        except (OSError, ValueError):
            return  # it is not there, or does not listen: nothing that this process needs


def _line(text: str) -> str:
    return " ".join(text.split())[:_LINE_CHARS_MAX]
