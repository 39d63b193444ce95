"""Runs checks so that one that hangs (a dead mount, a dead host) holds up no other, and nothing for ever."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from diachunk.api.checkup.base import Area, Check, Finding, Group, Level, Patient
from diachunk.errors import DiachunkError, from_os_error
from diachunk.within import Aside


class _Ward:
    """One group under examination. Findings are appended as they come, so that a hang loses none."""

    def __init__(self, group: Group, patient: Patient) -> None:
        self.group = group
        self.found: list[Finding] = []
        self._patient = patient
        self._left = [*group.checks]
        self.thread = Aside(self._examine, "diachunk-doctor")
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
