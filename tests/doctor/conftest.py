from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.doctored import SHIM
from fixtures.settings import clean_environment
from fixtures.shared import small

__all__ = ["small"]

_HUB = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_")


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user of a new machine: a home directory with nothing in it, `diachunk` on the path. Returns the home."""
    for name in [*os.environ]:
        if name.startswith(_HUB) or name in ("XDG_CACHE_HOME", "TMPDIR"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    clean_environment(monkeypatch, home)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "diachunk").write_text(SHIM)
    (tools / "diachunk").chmod(0o755)
    # The verbs of administrators are called with sudo by those who are none.
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DIACHUNK_HOME", str(home / "store"))
    monkeypatch.chdir(home)
    return home
