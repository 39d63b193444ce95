"""Which file systems are shared between hosts. Read from /proc on Linux; elsewhere all count as local."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

_NETWORK = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "glusterfs",
        "ocfs2",
        "gfs2",
    }
)
_NETWORK_FUSE = ("fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.rclone", "fuse.juicefs")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system: where, of what kind ("ext4", "nfs4", ...), from which device or server."""

    point: str
    kind: str
    device: str


def mount_of(path: Path, mountinfo: str | None = None) -> Mount | None:
    """The mount that holds a path; None if unknown.

    Source: proc_pid_mountinfo(5); the last of the longest mount points that are prefixes of the path wins.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    wanted = os.path.realpath(path)
    best: Mount | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        if len(fields) < 5 or len(rest) < 2:
            continue
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        inside = wanted == point or wanted.startswith(point.rstrip("/") + "/")
        if inside and (best is None or len(point) >= len(best.point)):
            best = Mount(point, rest[0], rest[1])
    return best


def file_system(path: Path, mountinfo: str | None = None) -> str:
    """The type of the file system that holds `path`, or "" if unknown."""
    mount = mount_of(path, mountinfo)
    return mount.kind if mount is not None else ""


def is_network(path: Path) -> bool:
    kind = file_system(path)
    return kind in _NETWORK or kind.startswith(_NETWORK_FUSE)


def this_host() -> str:
    """This host's name, safe in a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:48] or "host"
