"""How much memory there is, and how much this process takes: asked of the system, never guessed."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_FIGURES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")
_FIGURES_V2 = ("memory.max", "memory.current")
_INACTIVE = ("inactive_file ", "total_inactive_file ")
_UNLIMITED = 1 << 60


def available_bytes() -> int | None:
    """What this process may still take without driving the machine into swap; None where nobody can tell.

    The least of the machine's, the container's (control groups v2 and v1) and the process's own limit.
    """
    bounds = [_of_machine(), _of_process()]
    bounds += [_of_group(*group) for group in _groups()]
    known = [each for each in bounds if each is not None]
    return max(0, min(known)) if known else None


def _of_machine() -> int | None:
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * _PAGE_BYTES
    except (ValueError, OSError):
        return None


def _groups() -> Iterator[tuple[Path, str, str]]:
    """The control groups that hold this process, those that hold them, and the names of their limit and usage: a batch
    job's limit is on one of these, in a container on the outermost that is to be seen (cgroups(7)).
    """
    first, second = (_CGROUP / "memory", *_FIGURES_V1), (_CGROUP, *_FIGURES_V2)
    yield from (first, second)
    for line in _text(_MEMBERSHIP).splitlines():
        _, kinds, path = (line + "::").split(":")[:3]
        base, limit, usage = first if kinds else second
        if (not kinds or "memory" in kinds.split(",")) and ".." not in path:
            own = base / path.strip("/")
            within = (each for each in (own, *own.parents) if each != base and each.is_relative_to(base))
            yield from ((each, limit, usage) for each in within)


def _of_group(group: Path, limit: str, usage: str) -> int | None:
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if not most.isdecimal() or not used.isdecimal() or int(most) >= _UNLIMITED:
        return None
    # What the group uses counts the page cache, which is given back when it is needed.
    cache = _text(group / "memory.stat").splitlines()
    inactive = [int(line.split()[1]) for line in cache if line.startswith(_INACTIVE)]
    return int(most) - int(used) + max(inactive, default=0)


def _of_process() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    pages = _text(Path("/proc/self/statm")).split()
    return soft - int(pages[0]) * _PAGE_BYTES if pages else soft


def own_bytes() -> int:
    """Memory that is this process's alone: what it wrote to, not what it maps of files. Where the system does not
    tell the two apart, the most that it ever had.
    """
    pages = _text(Path("/proc/self/statm")).split()
    if len(pages) > 2:
        return (int(pages[1]) - int(pages[2])) * _PAGE_BYTES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, ValueError):
        return ""
