"""The examples that are about sets of checkpoints work as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from diachunk.config import load_config
from fixtures.preload import Project

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "preload.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=project.directory)


def test_the_example_project_file_is_one(tmp_path: Path) -> None:
    config = load_config(
        {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}, tmp_path / "no", EXAMPLES / "diachunk.toml"
    )
    assert [each.target for each in config.checkpoints] == ["dia-1.6b", "silero/silero-vad"]
    assert [each.places for each in config.checkpoints] == [None, ()]
    assert config.places == ("hub",)


def test_the_script_tells_what_is_missing_and_gets_it(project: Project) -> None:
    before = run(project)
    assert (before.returncode, before.stderr) == (1, "")
    assert "lab/one@main  model: 0.2 of 0.2 MB missing" in before.stdout
    assert "to fetch: 0.5 MB" in before.stdout
    got = run(project, "--download-all")
    assert (got.returncode, got.stderr) == (0, "")
    assert "  model/weights.bin  0.2 MB" in got.stdout
    after = run(project, str(project.directory))
    assert (after.returncode, "to fetch: 0.0 MB" in after.stdout) == (0, True)
