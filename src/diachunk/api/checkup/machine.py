"""The machine and this program's surroundings: descriptors, memory, temporary directories, versions."""

from __future__ import annotations

import os
import platform
import resource
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

from diachunk.api.checkup.base import Area, Finding, Level, Patient, as_root, quoted, size
from diachunk.api.checkup.linux import memory_available_bytes
from diachunk.limits import MiB
from diachunk.version import __version__

_FILES_MIN = 256
_FILES_WANTED = 4096
_MEMORY_LOW_BYTES = 512 * MiB
_TEMPORARY_LOW_BYTES = 64 * MiB
_TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")
_OPENSSL_MIN = (1, 1, 1)


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.MACHINE, what, cure)


def versions(patient: Patient) -> Iterator[Finding]:
    """What this runs on."""
    what = f"diachunk {__version__}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}"
    if ssl.OPENSSL_VERSION_INFO[:3] < _OPENSSL_MIN or "OpenSSL" not in ssl.OPENSSL_VERSION:
        text = f"{what}: too old for today's servers, or not OpenSSL; https may fail"
        yield _found(
            Level.WARNING, text, "python3 -m venv ~/diachunk-venv  # with a Python of python.org or conda"
        )
    else:
        yield _found(Level.OK, what)


def open_files(patient: Patient) -> Iterator[Finding]:
    """How many files this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if unlimited or soft >= _FILES_MIN:
        yield _found(Level.OK, f"open files: {'no limit' if unlimited else f'{soft:,}'}")
        return
    what = f"only {soft} files may be open at once; a fetch of many files fails with “too many open files”"
    within_reach = hard == resource.RLIM_INFINITY or hard >= _FILES_MIN
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
    raise_it = f"ulimit -n {wanted}"
    yield _found(
        Level.WARNING,
        what,
        raise_it if within_reach else as_root(f"prlimit --pid $$ --nofile={_FILES_WANTED}"),
    )


def temporary(patient: Patient) -> Iterator[Finding]:
    """Whether the temporary directory, and /dev/shm where there is one, can be used."""
    named = patient.environment.get("TMPDIR")
    if named and (wrong := _unusable(Path(named))):
        what = f"TMPDIR is {named}, which {wrong}; programs use another directory, or fail"
        yield _found(Level.WARNING, what, f"mkdir -p {quoted(named)}" if "there" in wrong else "unset TMPDIR")
        return
    # Not tempfile.gettempdir(): it makes a file to find out.
    where = next((each for each in (named, *_TEMPORARY) if each and not _unusable(Path(each))), None)
    if where is None:
        what = f"no temporary directory can be written to: {_TEMPORARY[0]} {_unusable(Path(_TEMPORARY[0]))}"
        yield _found(Level.WARNING, what, "export TMPDIR=$HOME")
        return
    yield _found(Level.OK, f"temporary files: {where}")
    shared = Path("/dev/shm")
    if sys.platform == "linux" and (wrong := _unusable(shared)):
        what = f"{shared} {wrong}: loaders with several processes fail"
        cure = "mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
        if "full" in wrong:
            cure = "mount -o remount,size=2G /dev/shm  # in Docker: docker run --shm-size=2g"
        yield _found(Level.NOTE, what, as_root(cure))


def _unusable(directory: Path) -> str:
    """Why no file can be made in a directory, or ""."""
    if not directory.is_dir():
        return "is not there" if not directory.exists() else "is not a directory"
    if not os.access(directory, os.W_OK | os.X_OK):
        return "cannot be written to"
    status = os.statvfs(directory)
    return "is full" if status.f_bavail * status.f_frsize < _TEMPORARY_LOW_BYTES else ""


def memory(patient: Patient) -> Iterator[Finding]:
    """Whether a fetch has memory enough; loading a checkpoint takes more."""
    available = memory_available_bytes()
    if available is None:
        return
    if available < _MEMORY_LOW_BYTES:
        what = f"{size(available)} of memory available: a fetch may be killed"
        yield _found(
            Level.WARNING, what, "ps aux --sort=-rss | head  # end what is not needed; fewer lanes help, too"
        )
    else:
        yield _found(Level.OK, f"{size(available)} of memory available")
