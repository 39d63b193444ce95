"""What quotactl(2) says, read as the kernel's header has it."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import pytest

from diachunk.api.checkup import quota

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="quotas are read on Linux alone")


class Kernel:
    """Stands for libc on a disk where the user has a quota and the group has none."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, bytes, int]] = []

    def quotactl(self, command: Any, device: bytes, who: Any, answer: Any) -> int:
        number = command.value & 0xFFFFFFFF
        self.asked.append((number, device, who.value))
        if number != 0x80000700:  # QCMD(Q_GETQUOTA, USRQUOTA)
            return -1
        packed = (ctypes.c_uint64 * 9).from_buffer(answer._obj)
        # limits of 30,000 and 20,000 KiB, 15,000,000 bytes used; 100 files at most, 40 used; all of it valid
        packed[:9] = [30_000, 20_000, 15_000_000, 100, 0, 40, 0, 0, 0b1111]
        return 0


def test_what_is_left_of_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: kernel)
    assert list(quota.left("/dev/sda1")) == [quota.Left("user's", 30_000 * 1024 - 15_000_000, 60)]
    assert kernel.asked == [
        (0x80000700, b"/dev/sda1", os.geteuid()),
        (0x80000701, b"/dev/sda1", os.getegid()),
    ]


@pytest.mark.parametrize("device", ["server:/export", "tmpfs", "", "/dev/no-such-device"])
def test_where_there_are_none(device: str) -> None:
    assert list(quota.left(device)) == []
