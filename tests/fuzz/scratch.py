"""A directory of this process's own, removed when it ends."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def scratch() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="diachunk-fuzz-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
