"""Which file systems count as shared between hosts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diachunk.store import mounts
from diachunk.store.mounts import file_system, is_network, this_host

MOUNTINFO = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /nowhere/home rw - nfs4 server:/home rw
31 30 0:27 / /nowhere/home/me/local rw master:3 propagate_from:2 - xfs /dev/sdb rw
32 22 0:28 / /nowhere/with\040a\040space rw - fuse.sshfs x rw
33 22 0:29 / /nowhere/over rw - ext4 /dev/sdc rw
34 33 0:30 / /nowhere/over rw - lustre /dev/sdd rw
garbage
40 - short
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/nowhere", "ext4"),
        ("/nowhere/home", "nfs4"),
        ("/nowhere/home/me/x", "nfs4"),
        ("/nowhere/home/me/local/x", "xfs"),
        ("/nowhere/homestead", "ext4"),
        ("/nowhere/with a space/x", "fuse.sshfs"),
        ("/nowhere/over/x", "lustre"),
    ],
)
def test_the_longest_mount_point_wins_and_the_later_of_two(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTINFO) == kind


def test_a_link_is_followed_to_where_the_bytes_are(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/nowhere/home")
    assert file_system(link, MOUNTINFO) == "nfs4"


def test_unknown_is_local() -> None:
    assert file_system(Path("/nowhere"), "") == ""


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("fuse.sshfs", True),
        ("lustre", True),
        ("ext4", False),
        ("fuse.x", False),
        ("overlay", False),
        ("", False),
    ],
)
def test_what_is_shared_between_hosts(kind: str, network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "file_system", lambda path: kind)
    assert is_network(Path("/nowhere")) is network


def test_the_real_mount_table_is_understood(tmp_path: Path) -> None:
    if os.path.exists("/proc/self/mountinfo"):
        assert file_system(Path("/proc")) == "proc"


def test_the_hosts_name_is_safe_in_a_file_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "../a.b/\n" + "x" * 100)
    assert this_host() == "---a-b--" + "x" * 40
    monkeypatch.setattr("socket.gethostname", lambda: "")
    assert this_host() == "host"
