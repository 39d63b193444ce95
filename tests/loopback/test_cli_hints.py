"""Hints of the command line that are there to be copied."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, assert_same_files, published
from fixtures.command_line import run

pytestmark = pytest.mark.loopback


def test_a_server_that_only_the_manifest_names_is_told_once_with_the_command_that_names_it(
    small: Checkpoint, quick: None, tmp_path: Path
) -> None:
    with Nginx(small.root) as origin:
        pointing = published(small.root, origins=[origin.url], out=tmp_path / "pointing.json")
        refused = run("fetch", pointing.manifest_file)
        assert refused.returncode == 5
        assert refused.stderr.count("that only the manifest names") == 1
        hint = refused.stderr.splitlines()[-1]
        assert hint.strip().startswith("if you trust it: `diachunk fetch ")
        command = shlex.split(hint.partition("`")[2].rstrip("`"))
        assert command[1:] == ["fetch", str(pointing.manifest_file), "--origin", origin.url]
        done = run(*command[1:])
    assert done.returncode == 0, done.stderr
    assert_same_files(Path(done.stdout.strip()), small)
