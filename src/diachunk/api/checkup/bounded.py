"""Runs checks so that one that hangs (a dead mount, a dead host) holds up no other, and nothing for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from diachunk.api.checkup.base import Area, Check, Finding, Group, Level, Patient
from diachunk.errors import DiachunkError, from_os_error

T = TypeVar("T")


class _Thread(threading.Thread, Generic[T]):
    """A call on a daemon thread: the process may end while it still hangs."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True, name="diachunk-doctor")
        self._call = call
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result.append(self._call())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            self.error = error


def within(seconds: float, call: Callable[[], T]) -> T:
    """Calls, and waits at most so long.

    Raises:
        TimeoutError: it has not returned; it goes on in the background.
    """
    thread = _Thread(call)
    thread.start()
    thread.join(seconds)
    if thread.error is not None:
        raise thread.error
    if not thread.result:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return thread.result[0]


class _Ward:
    """One group under examination. Findings are appended as they come, so that a hang loses none."""

    def __init__(self, group: Group, patient: Patient) -> None:
        self.group = group
        self.found: list[Finding] = []
        self._patient = patient
        self._left = [*group.checks]
        self.thread = _Thread(self._examine)
        self.until = time.monotonic() + group.deadline_s
        self.thread.start()

    def _examine(self) -> None:
        while self._left:
            self.found += _safely(self._left[0], self._patient, self.group.area, self.found)
            del self._left[0]

    def findings(self) -> list[Finding]:
        """Waits until the deadline, then says what was not looked at."""
        self.thread.join(max(0.0, self.until - time.monotonic()))
        left, found = [*self._left], [*self.found]
        if not self.thread.is_alive() or not left:
            return found
        names = ", ".join(_label(check) for check in left)
        what = f"{self.group.what} gave no answer in {self.group.deadline_s:g} s; not looked at: {names}"
        return [*found, Finding(Level.FAULT, self.group.area, what, _HANGS[self.group.area])]


_HANGS = {
    Area.SETTINGS: "df -h  # where this one hangs too, the home directory's server is away",
    Area.STORE: "export DIACHUNK_HOME=/var/tmp/diachunk  # or any directory on a disk that answers",
    Area.MACHINE: "df -h  # where this one hangs too, a mounted disk or server is away",
    Area.NETWORK: "diachunk doctor --offline  # and ask whoever runs that server",
    Area.CACHES: "df -h  # where this one hangs too, the cache's disk or server is away",
}


def _label(check: Check) -> str:
    name = getattr(check, "__name__", "") or getattr(getattr(check, "func", None), "__name__", "a check")
    return str(name).replace("_", " ")


def _safely(check: Check, patient: Patient, area: Area, found: list[Finding]) -> Sequence[Finding]:
    """Adds what a check finds to `found`; returns what stopped it, if anything did."""
    try:
        for finding in check(patient):
            found.append(finding)
    except DiachunkError as error:
        return [Finding(Level.FAULT, area, error.message, f"# {error.hint}" if error.hint else "")]
    except OSError as error:
        told = from_os_error(error, "look at")
        return [Finding(Level.FAULT, area, told.message, f"# {told.hint}" if told.hint else "")]
    except Exception as error:  # noqa: BLE001 - a check with a bug must not silence the others
        what = f"the check “{_label(check)}” itself failed: {type(error).__name__}: {error}"
        return [Finding(Level.WARNING, area, what, "# please report this to diachunk's authors")]
    return []


def examine(groups: Iterable[Group], patient: Patient) -> list[Finding]:
    """Runs all groups side by side; returns after the longest deadline at the latest."""
    wards = [_Ward(group, patient) for group in groups]
    return [finding for ward in wards for finding in ward.findings()]
