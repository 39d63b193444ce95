"""What a load tells while it runs, and what it took. No torch here: whoever shows progress needs none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from diachunk.transfer.progress import Event


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is going to be done, told before it starts.

    Attributes:
        tensors: how many.
        total_bytes: of their bytes in the files; the sum of `LoadProgress.bytes`.
        read_bytes: what has to be copied from the files; `mapped_bytes` are mapped instead. `hashed_bytes` of the two
            are hashed, the rest is proven.
        result_bytes: what they take on the device, in the dtype asked for.
        host_bytes: memory of this process that the load needs at most beside what it has, the result on the host
            included; mapped files not.
        free_bytes: what the device has room for, None if nobody can tell.
        staging_bytes: what is needed there beside the result, at most, while tensors are cast.
    """

    component: str
    device: str
    dtype: str
    tensors: int
    total_bytes: int
    read_bytes: int
    hashed_bytes: int
    mapped_bytes: int
    result_bytes: int
    host_bytes: int
    free_bytes: int | None
    staging_bytes: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """More of a component is there. All counts are deltas, in bytes of its files.

    Attributes:
        bytes: that are on the device now.
        read_bytes, verified_bytes, fetched_bytes: read from the files, hashed, come over the network.
    """

    bytes: int
    component: str
    read_bytes: int = 0
    verified_bytes: int = 0
    fetched_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """The load as a whole, about four times a second.

    Attributes:
        left_bytes: of the files, not yet on the device; `rate_bps`: of the last seconds, bytes a second.
        limited_by: for people; "" while too little is measured.
        host_bytes: memory of its own that this process has now; `device_bytes`: what is in use on the device.
        bytes: 0, so that every event may be added up.
    """

    component: str
    left_bytes: int
    rate_bps: float
    limited_by: str
    host_bytes: int
    device_bytes: int
    bytes: int = 0


LoadEvent: TypeAlias = Event | LoadPlan | LoadProgress | LoadStatus
LoadListener: TypeAlias = Callable[[LoadEvent], None]


def silent(event: LoadEvent) -> None:
    """The listener that does nothing."""


@dataclass(slots=True)
class LoadReport:
    """What a load took. Seconds of a stage are summed over the lanes; `elapsed_s` is by the clock.

    Attributes:
        component: of the checkpoint, or "" where there is but one without a name.
        device: as torch calls it: "cpu", "cuda:0".
        dtype: that was asked for, as torch calls it: "bfloat16"; "" where each tensor keeps its own.
        tensors: how many.
        total_bytes: of the tensors, in the files.
        read_bytes: copied from the files; `mapped_bytes` were mapped without a copy. `verified_bytes` of the two were
            hashed, the rest was proven before.
        fetched_bytes: that came over the network meanwhile; 0 where all was here.
        elapsed_s: from when PyTorch is imported to the last tensor, by the clock.
        read_s, verify_s, cast_s, copy_s: spent on reading, hashing, casting and copying onto the device.
        result_bytes: what the tensors take.
        network_s: what the lanes waited for chunks that were still being fetched.
        lanes: threads that did all this side by side, at most.
        host_peak_bytes: the most memory of its own that this process had meanwhile, measured ten times a second;
            `host_before_bytes`: what it had before.
        device_peak_bytes: the same on the device.
        repaired: files that were mended.
    """

    component: str = ""
    device: str = ""
    dtype: str = ""
    tensors: int = 0
    total_bytes: int = 0
    read_bytes: int = 0
    verified_bytes: int = 0
    mapped_bytes: int = 0
    fetched_bytes: int = 0
    result_bytes: int = 0
    elapsed_s: float = 0.0
    read_s: float = 0.0
    verify_s: float = 0.0
    cast_s: float = 0.0
    copy_s: float = 0.0
    network_s: float = 0.0
    lanes: int = 0
    host_peak_bytes: int = 0
    host_before_bytes: int = 0
    device_peak_bytes: int = 0
    repaired: list[str] = field(default_factory=list)

    @property
    def stages_s(self) -> dict[str, float]:
        """Seconds by what they were spent on, as people call it."""
        return {
            "reading": self.read_s,
            "hashing": self.verify_s,
            "casting": self.cast_s,
            "copying": self.copy_s,
            "the network": self.network_s,
        }
