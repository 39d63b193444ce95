"""A set that names repositories of a hub and recipes: what the lock keeps of them, and restores."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.api.sets.checkpoint_set import PreloadFailed
from diachunk.api.sets.preloading import preload
from diachunk.errors import TrustError
from diachunk.testing.hub import Hub
from fixtures.checkpoints import tree
from fixtures.command_line import COMMAND

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.loopback

FILES = {"config.json": b'{"of": 1}\n', "model.safetensors": b"\x02\0\0\0\0\0\0\0{}" + b"1" * 90_000}
NEXT = {**FILES, "README.md": b"a new line\n"}

RECIPE = """
name = "mine"
[[component]]
name = "model"
hub = "org/repo"
revision = "main"
files = ["config.json", "model.safetensors"]
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tree(tmp_path / "project", {"diachunk.toml": b'checkpoints = ["hub:org/repo"]\n'})
    monkeypatch.chdir(made)
    return made


def test_a_branch_that_moved_on_is_restored_by_its_commit(hub: Hub, directory: Path, tmp_path: Path) -> None:
    commit = hub.add("org/repo", FILES)
    first = preload()["hub:org/repo"]
    (entry,) = tomllib.loads((directory / "diachunk.lock").read_text())["checkpoint"]
    assert (entry["target"], entry["id"]) == ("hub:org/repo", first.manifest.hex_id)
    assert entry["upstream"] == [{"component": "", "kind": "hub", "repository": "org/repo", "commit": commit}]
    hub.add("org/repo", NEXT)
    fresh = preload(locking="exact", home=tmp_path / "fresh")["hub:org/repo"]
    assert fresh.manifest.id == first.manifest.id
    assert sorted(os.listdir(fresh)) == ["config.json", "model.safetensors"]
    renewed = preload(locking="update")["hub:org/repo"]
    assert renewed.manifest.id != first.manifest.id


def test_with_everything_here_the_hub_is_not_asked(hub: Hub, directory: Path) -> None:
    hub.add("org/repo", FILES)
    preload()
    asked = len(hub.requests)
    preload()
    preload(locking="exact")
    assert len(hub.requests) == asked
    hub.close()
    assert len(preload(locking="exact")) == 1


def test_a_recipe_that_gives_something_else_now_is_refused_before_it_is_fetched(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    hub.add("org/repo", FILES)
    recipe = directory / "mine.toml"
    recipe.write_text(RECIPE)
    (directory / "diachunk.toml").write_text('checkpoints = ["./mine.toml"]\n')
    first = preload()["./mine.toml"]
    hub.add("org/repo", NEXT | {"config.json": b"{}"})
    sent = hub.bytes_sent("*")
    with pytest.raises(PreloadFailed) as caught:
        preload(locking="exact", home=tmp_path / "fresh")
    ((_, error),) = caught.value.failures
    assert type(error) is TrustError
    assert first.manifest.hex_id in error.message
    assert hub.bytes_sent("*") == sent
    assert preload(locking="exact")["./mine.toml"].manifest.id == first.manifest.id, "it is here"


def test_a_program_that_asks_a_hub_finds_it_all_and_asks_nobody(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    hub.add("org/repo", FILES)
    program = "import huggingface_hub; print(huggingface_hub.snapshot_download('org/repo'))"
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url}
    for _ in range(2):
        done = subprocess.run(
            [*COMMAND, "run", "--", sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=directory,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        found = Path(done.stdout.strip())
        assert {each.name: each.read_bytes() for each in found.iterdir()} == FILES
        hub.close()  # the second time everything is here
