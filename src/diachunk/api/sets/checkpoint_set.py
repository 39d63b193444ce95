"""What a run over a machine's set of checkpoints plans, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diachunk.api.fetching import Snapshot
from diachunk.errors import DiachunkError, UsageError
from diachunk.project import WantedCheckpoint
from diachunk.transfer.plan import Plan

_TOLD_FAILURES = 4


@dataclass(frozen=True, slots=True)
class Planned:
    """One checkpoint of the set and what is to be done about it: a plan, or why there is none."""

    wanted: WantedCheckpoint
    plan: Plan | None = None
    error: DiachunkError | None = None


@dataclass(frozen=True, slots=True)
class PreloadPlan:
    """What `preload` would do. In the sums, files and chunks that checkpoints share count once.

    Attributes:
        named_by: the file whose set it is.
        lock: its lock file, or None where the set is not a project's.
        total_bytes: of all their files.
        present_bytes: of these, proven and in place; `reuse_bytes`: here, in other files; `fetch_bytes`: neither.
        disk_bytes: further disk space needed; `free_bytes` is what the store's disk has.
    """

    named_by: str
    lock: Path | None
    checkpoints: tuple[Planned, ...]
    total_bytes: int
    present_bytes: int
    reuse_bytes: int
    fetch_bytes: int
    disk_bytes: int
    free_bytes: int

    @property
    def complete(self) -> bool:
        """Whether everything is here already."""
        return not self.fetch_bytes + self.disk_bytes and all(each.plan for each in self.checkpoints)


@dataclass(frozen=True, slots=True)
class Preloaded:
    """The set, complete on this machine. Indexed by target: `preloaded["lab/dia"].path("config.json")`.

    Attributes:
        snapshots: one for each checkpoint, in the set's order.
    """

    targets: tuple[str, ...]
    snapshots: tuple[Snapshot, ...]

    def __getitem__(self, target: str) -> Snapshot:
        try:
            return self.snapshots[self.targets.index(target)]
        except ValueError:
            raise KeyError(target) from None

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(self.snapshots)

    def __len__(self) -> int:
        return len(self.snapshots)


class PreloadFailed(DiachunkError):
    """Some checkpoints of the set are not complete; the others are. Its exit code is the worst of theirs.

    Attributes:
        failures: target and error of each, in the set's order.
    """

    def __init__(self, failures: Sequence[tuple[str, DiachunkError]], count: int) -> None:
        self.failures = tuple(failures)
        worst = max((error for _, error in failures), key=lambda each: (not each.retryable, each.exit_code))
        told = [_told(target, error) for target, error in failures[:_TOLD_FAILURES]]
        more = f"; and {len(failures) - len(told)} more" if len(failures) > len(told) else ""
        super().__init__(
            f"{len(failures)} of {count} checkpoints not complete: {'; '.join(told)}{more}", hint=worst.hint
        )
        self.exit_code = worst.exit_code
        self.retryable = all(error.retryable for _, error in failures)


def _told(target: str, error: DiachunkError) -> str:
    return error.message if error.message.startswith(target) else f"{target}: {error.message}"


class NothingNamed(UsageError):
    """No settings name a checkpoint."""
