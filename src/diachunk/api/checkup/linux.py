"""What the kernel says of locks, processes and ports, in /proc. Nothing at all on other systems."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"
_TEXT_BYTES_MAX = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine. `state` is its letter in proc_pid_stat(5): T stopped, D waits for a disk.
    `is_diachunk`: whether it runs our program.
    """

    pid: int
    command: str
    state: str
    is_diachunk: bool = False


def text_of(path: Path) -> str:
    """A file of /proc; "" if it is not there."""
    try:
        with open(path, "rb") as file:
            return file.read(_TEXT_BYTES_MAX).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def process(pid: int) -> Process:
    """What can be told of a process; its fields are "" where it belongs to others, or is gone."""
    words = text_of(_PROC / str(pid) / "cmdline").rstrip("\0").split("\0")
    after_name = text_of(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    command = " ".join(words).strip()
    return Process(pid, command[:80], after_name[0] if after_name else "", _is_diachunk(words))


def _is_diachunk(words: list[str]) -> bool:
    """Whether a command line runs our program. Its name alone says nothing: projects lie in directories so called."""
    names = [os.path.basename(word) for word in words]
    if not names[0].startswith("python"):
        return names[0] == "diachunk"
    return names[1:2] == ["diachunk"] or ("-m", "diachunk") in pairwise(words)


def lock_holders() -> dict[int, list[int]]:
    """Which processes hold flock(2) locks: inode -> pids. Source: proc_locks(5).

    By inode alone: on file systems with several subvolumes the device there is not that of stat(2), so whoever
    asks looks whether the process has the file open (`has_open`).
    """
    holders: dict[int, list[int]] = {}
    for line in text_of(_PROC / "locks").splitlines():
        fields = line.split()
        if "->" in fields or "FLOCK" not in fields or len(fields) < 6:
            continue
        place = fields[5].split(":")
        if fields[4].isdigit() and len(place) == 3 and place[2].isdigit():
            holders.setdefault(int(place[2]), []).append(int(fields[4]))
    return holders


def has_open(pid: int, path: Path) -> bool | None:
    """Whether a process has this very file open; None if that cannot be told (another user's process)."""
    try:
        wanted = path.stat()
        with os.scandir(_PROC / str(pid) / "fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # closed since
                    status = entry.stat()
                    if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                        return True
    except OSError:
        return None
    return False


def listeners(ports: range) -> dict[int, int | None]:
    """TCP ports that are listened on, and by which process (None if that cannot be told).

    Source: proc_net_tcp(5): columns are sl, local address (hex), remote, state, ..., inode (the tenth).
    """
    inodes: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        for line in text_of(_PROC / "net" / name).splitlines()[1:]:
            fields = line.split()
            if len(fields) < 10 or fields[3] != _LISTENING:
                continue
            port = int(fields[1].rpartition(":")[2], 16)
            if port in ports:
                inodes[f"socket:[{fields[9]}]"] = port
    found: dict[int, int | None] = dict.fromkeys(sorted(set(inodes.values())))
    if found:
        for pid, link in _sockets():
            if link in inodes:
                found[inodes[link]] = pid
    return found


def _sockets() -> Iterator[tuple[int, str]]:
    for name in os.listdir(_PROC):
        if not name.isdigit():
            continue
        try:
            with os.scandir(_PROC / name / "fd") as entries:
                links = [os.readlink(entry.path) for entry in entries]
        except OSError:
            continue
        for link in links:
            if link.startswith("socket:"):
                yield int(name), link


def memory_available_bytes() -> int | None:
    """What programs can still have: of the machine, and of the control group if that has a limit; None if unknown."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text_of(_PROC / "meminfo"), re.MULTILINE)
    available = [int(found[1]) * 1024] if found else []
    group = Path("/sys/fs/cgroup")
    limit, used = text_of(group / "memory.max").strip(), text_of(group / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        # What caches files is given back when it is wanted.
        cached = re.search(r"^inactive_file (\d+)$", text_of(group / "memory.stat"), re.MULTILINE)
        available.append(max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0)))
    return min(available, default=None)
