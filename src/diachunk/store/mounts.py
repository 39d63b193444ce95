"""Which file systems are shared between hosts. Read from /proc on Linux; elsewhere all count as local."""

from __future__ import annotations

import os
import re
import socket
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


def file_system(path: Path, mountinfo: str | None = None) -> str:
    """The type of the file system that holds `path` ("ext4", "nfs4", ...), or "" if unknown.

    Source: proc_pid_mountinfo(5); the longest mount point that is a prefix of the path wins.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    wanted = os.path.realpath(path)
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if (wanted == point or wanted.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def is_network(path: Path) -> bool:
    kind = file_system(path)
    return kind in _NETWORK or kind.startswith(_NETWORK_FUSE)


def this_host() -> str:
    """This host's name, safe in a file name."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:48] or "host"
