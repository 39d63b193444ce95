"""What disk quotas leave, by quotactl(2): Linux alone, local file systems alone."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

_Q_GETQUOTA = 0x800007
_KINDS = (("user's", 0, os.geteuid), ("group's", 1, os.getegid))
_BLOCK_BYTES = 1024
_HAS_BLOCKS, _HAS_FILES = 0b11, 0b1100


class _Dqblk(ctypes.Structure):
    """struct if_dqblk of linux/quota.h: limits in KiB, use in bytes."""

    _fields_ = (
        ("block_hard", ctypes.c_uint64),
        ("block_soft", ctypes.c_uint64),
        ("space", ctypes.c_uint64),
        ("file_hard", ctypes.c_uint64),
        ("file_soft", ctypes.c_uint64),
        ("files", ctypes.c_uint64),
        ("block_until", ctypes.c_uint64),
        ("file_until", ctypes.c_uint64),
        ("valid", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Left:
    """What one quota leaves. `files` is None where their number is not limited."""

    whose: str
    bytes: int
    files: int | None


def left(device: str) -> Iterator[Left]:
    """What the quotas that this user has on a device leave; nothing where there are none."""
    if sys.platform != "linux" or not device.startswith("/dev/"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for whose, kind, who in _KINDS:
        found = _Dqblk()
        command = ctypes.c_int((_Q_GETQUOTA << 8 | kind) - (1 << 32))
        if libc.quotactl(command, device.encode(), ctypes.c_int(who()), ctypes.byref(found)) != 0:
            continue
        if not found.valid & _HAS_BLOCKS or not (found.block_hard or found.block_soft):
            continue
        limit = (found.block_hard or found.block_soft) * _BLOCK_BYTES
        files = found.file_hard or found.file_soft
        some = found.valid & _HAS_FILES and files
        yield Left(whose, max(0, limit - found.space), max(0, files - found.files) if some else None)
