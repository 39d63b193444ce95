"""The caches of the native set-up: descript's codec, which is never fetched again once there, and Dia's own."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from diachunk.api.checkup.base import Area, Finding, Level, Patient, quoted, size
from diachunk.places import cache_of
from diachunk.places.base import regular_size
from diachunk.places.descript import WEIGHTS

_WEIGHTS_BYTES = 306_717_287
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES_MAX = 22 + 65535
"""The record that ends a zip file, and the longest comment after it (APPNOTE.TXT 4.3.16)."""
_FETCH = "diachunk fetch dia-1.6b-native -c vocoder --place"
_VOCODER = Path("vocoder", "checkpoint.pth")


def _found(level: Level, what: str, cure: str = "") -> Finding:
    return Finding(level, Area.CACHES, what, cure)


def codec(patient: Patient) -> Iterator[Finding]:
    """DAC's weights: there is a way to fetch them only while there is no file at all."""
    path = cache_of("descript", patient.environment).root / WEIGHTS
    if not os.path.lexists(path):
        return
    actual = regular_size(path)
    if actual is None:
        what = f"{path} is {'a link that leads nowhere' if path.is_symlink() else 'not a file'}: programs fail on it"
        remove = f"rm {quoted(path)}" if path.is_symlink() else f"mv {quoted(path)} {quoted(path)}.old"
        yield _found(Level.FAULT, what, f"{remove} && {_FETCH}")
        return
    whole = _ends_as_zip(path, actual)
    if actual == _WEIGHTS_BYTES and whole:
        yield _found(Level.OK, f"{path}: {size(actual)}, as it should be")
        return
    if actual < _WEIGHTS_BYTES:
        wrong = f"is cut off ({actual:,} of {_WEIGHTS_BYTES:,} bytes)"
    else:
        wrong = (
            f"is not DAC's file ({actual:,} bytes, not {_WEIGHTS_BYTES:,})"
            if actual > _WEIGHTS_BYTES
            else "has no end"
        )
    fails = (
        ""
        if whole
        else ": programs will fail with “failed finding central directory”, and they never fetch it again"
    )
    level = Level.WARNING if whole else Level.FAULT
    yield _found(level, f"{path} {wrong}{fails}", "diachunk verify --cache descript --repair")


def _ends_as_zip(path: Path, size_bytes: int) -> bool:
    """Whether the end of a zip file is at its end."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, size_bytes - _ZIP_END_BYTES_MAX))
            return _ZIP_END in file.read(_ZIP_END_BYTES_MAX)
    except OSError:
        return True  # whether it can be read is another question


def dia(patient: Patient) -> Iterator[Finding]:
    """`~/.cache/dia`: a component without the vocoder, empty or unfinished files."""
    place = cache_of("dia", patient.environment)
    root = place.root
    if not any(regular_size(path) is not None or path.is_symlink() for path in _files(root)):
        return
    bad = [(path, bytes_) for path, bytes_ in place.leftovers()]
    empty = [path for path in _files(root) if regular_size(path) == 0]
    if bad or empty:
        first = [*(path for path, _ in bad), *empty]
        what = f"{first[0]}{f' and {len(first) - 1} more' if len(first) > 1 else ''}: left behind by a killed program"
        yield _found(Level.WARNING, what, f"rm {' '.join(map(quoted, first[:20]))}  # then: {_FETCH}")
    names = sorted(each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    if regular_size(root / _VOCODER) is None:
        what = f"{root} has {', '.join(names) or 'files'} but no {_VOCODER}, without which Dia does not start"
        yield _found(Level.WARNING, what, _FETCH)
    elif not _ends_as_zip(root / _VOCODER, regular_size(root / _VOCODER) or 0):
        what = f"{root / _VOCODER} is cut off: programs will fail with “failed finding central directory”"
        yield _found(Level.FAULT, what, "diachunk verify --cache dia --repair")
    elif not bad and not empty:
        yield _found(Level.OK, f"{root}: {', '.join(map(shlex.quote, names))}")


def _files(root: Path) -> Iterator[Path]:
    for directory, _, files in os.walk(root):
        yield from (Path(directory, name) for name in files)
