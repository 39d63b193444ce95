"""The disk beneath the store: is it there, writable, local, with room, and with the right owners and modes."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from diachunk.api.checkup import quota
from diachunk.api.checkup.base import Area, Budget, Finding, Level, Patient, as_root, count, quoted, size
from diachunk.limits import MiB
from diachunk.store.mounts import is_network, mount_of

_LOW_BYTES = 1024 * MiB
_LOW_INODES = 1000
_WALK_S = 1.5
ELSEWHERE = "export DIACHUNK_HOME=/var/tmp/diachunk"


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.STORE, what, cure)


def nearest(path: Path) -> Path:
    """The path, or the first directory above it that is there."""
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))


def access(patient: Patient) -> Iterator[Finding]:
    """Whether the store's directory is there, or can be made, and can be written to."""
    root = patient.home
    if root is None:
        return
    if os.path.islink(root) and not root.exists():
        cure = f"mkdir -p {quoted(os.path.realpath(root))}"
        yield _found(
            Level.FAULT, f"the store {root} is a link to {os.readlink(root)}, which is not there", cure
        )
        return
    there = nearest(root)
    if not there.is_dir():
        what = f"the store cannot be {root}: {there} is not a directory"
        yield _found(Level.FAULT, what, f"{ELSEWHERE}  # or any directory")
        return
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        mount = mount_of(there)
        cure = as_root(f"mount -o remount,rw {quoted(mount.point if mount else there)}")
        what = f"{there} lies on a file system that is mounted read-only: nothing can be fetched into it"
        yield _found(Level.FAULT, what, f"{cure}  # or: {ELSEWHERE}")
    elif not os.access(
        there, os.R_OK | os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        status = there.stat()
        what = (
            f"no permission to write {there} (owner {_owner(status.st_uid)}, {stat.filemode(status.st_mode)})"
        )
        yield _found(Level.FAULT, what, _own_it(there, root))
    elif there != root:
        yield _found(Level.OK, f"no store yet: the first fetch makes {root}")
    else:
        yield _found(Level.OK, f"the store is {root}, and can be written to")


def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _own_it(there: Path, root: Path) -> str:
    """What lies in one's own home, and was perhaps made by `sudo`, is taken back; elsewhere others' rights count."""
    mine = os.path.expanduser("~")
    if mine not in ("~", "/") and there.is_relative_to(mine):
        if there.stat().st_uid == os.geteuid():
            return f"chmod u+rwx {quoted(there)}"
        return f'sudo chown -R "$(id -u):$(id -g)" {quoted(there)}'
    return f"{ELSEWHERE}  # or ask the owner of {there} for the right to write there"


def file_system(patient: Patient) -> Iterator[Finding]:
    """Whether the store lies on a disk of this machine."""
    if patient.home is None:
        return
    there = nearest(patient.home)
    mount = mount_of(there)
    kind = f" ({mount.kind} at {mount.point})" if mount else ""
    if is_network(there):
        what = f"the store lies on a network file system{kind}: each host fetches for itself, and locks may do nothing"
        yield _found(Level.NOTE, what, f"{ELSEWHERE}  # a local disk is faster; or leave it")
    else:
        yield _found(Level.OK, f"the store lies on a local file system{kind}")


def space(patient: Patient) -> Iterator[Finding]:
    """Free bytes and inodes."""
    if patient.home is None:
        return
    there = nearest(patient.home)
    status = os.statvfs(there)
    free = status.f_bavail * status.f_frsize
    elsewhere = f"{ELSEWHERE}  # or any directory on a larger disk"
    if not status.f_blocks:
        yield _found(Level.FAULT, f"{there} keeps no files: a file system of the kernel's own", elsewhere)
        return
    if free < _LOW_BYTES:
        what = f"{size(free)} free at {there}: too little for a checkpoint"
        yield _found(
            Level.WARNING, what, f"diachunk gc  # if that is not enough: {ELSEWHERE}, on a larger disk"
        )
    else:
        yield _found(Level.OK, f"{size(free)} free at {there}")
    if status.f_files and status.f_favail < _LOW_INODES:
        what = f"{count(status.f_favail, 'more file')} can be made at {there} (of {status.f_files:,}): out of inodes"
        level = Level.FAULT if status.f_favail < 32 else Level.WARNING
        yield _found(level, what, f"{elsewhere}, or remove small files: df -i {quoted(there)}")
    elif status.f_files:
        yield _found(Level.OK, f"{status.f_favail:,} inodes free")


def quotas(patient: Patient) -> Iterator[Finding]:
    """What the user's and the group's quota leave, where the file system has them on."""
    mount = mount_of(nearest(patient.home)) if patient.home is not None else None
    if mount is None:
        return
    for left in quota.left(mount.device):
        what = f"the {left.whose} quota on {mount.point} leaves {size(left.bytes)}"
        if left.files is not None:
            what += f" and {count(left.files, 'file')}"
        if left.bytes < _LOW_BYTES or (left.files is not None and left.files < _LOW_INODES):
            cure = f"diachunk gc  # if that is not enough: {ELSEWHERE}, or ask for a larger quota"
            yield _found(Level.WARNING, what, cure)
        else:
            yield _found(Level.OK, what)


def modes(patient: Patient) -> Iterator[Finding]:
    """Whether every directory can be written by whom the root lets write: a site store's group, or this user."""
    root = patient.home
    if root is None or not root.is_dir():
        return
    status = root.stat()
    shared = bool(status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IWGRP)
    closed: list[Path] = []
    hidden: list[Path] = []
    budget, whole = Budget(_WALK_S), True
    for path, each in _walk(root):
        if budget.over:
            whole = False
            break
        if stat.S_ISDIR(each.st_mode):
            wrong = (
                each.st_gid != status.st_gid or each.st_mode & 0o2070 != 0o2070
                if shared
                else each.st_uid != os.geteuid() and not os.access(path, os.W_OK)
            )
            if wrong:
                closed.append(path)
        elif shared and (each.st_gid != status.st_gid or not each.st_mode & stat.S_IRGRP):
            hidden.append(path)
    if not closed and not hidden:
        so_far = "" if whole else " (as far as time let look)"
        yield _found(Level.OK, f"owners and modes in the store are as its root says{so_far}")
    elif shared:
        example = (closed + hidden)[0]
        what = (
            f"a shared store, but {count(len(closed), 'directory').replace('directorys', 'directories')} and "
            f"{count(len(hidden), 'file')} are not the group's to use, such as {example}"
        )
        yield _found(Level.FAULT, what, _share(root, status.st_gid))
    else:
        what = f"{closed[0]} and {len(closed) - 1} more in the store belong to others: run once with sudo?"
        yield _found(Level.FAULT, what, f'sudo chown -R "$(id -u):$(id -g)" {quoted(root)}')


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for directory, below, files in os.walk(root):
        for name in (*below, *files):
            path = Path(directory, name)
            try:
                status = path.lstat()
            except OSError:
                continue
            if not stat.S_ISLNK(status.st_mode):
                yield path, status


def _share(root: Path, gid: int) -> str:
    where = quoted(root)
    steps = (
        f"chgrp -hR {gid} {where}",
        f"find {where} -type d ! -perm -2070 -exec chmod g+rwxs {{}} +",
        f"find {where} -type f ! -perm -040 -exec chmod g+r {{}} +",
    )
    return " && ".join(map(as_root, steps))
