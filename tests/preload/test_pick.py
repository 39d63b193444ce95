"""Some files of a repository alone: on the command line, and in a project's set."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.api.sets.preloading import preload
from diachunk.errors import UsageError
from diachunk.project import SettingsFile, checkpoints
from diachunk.testing.hub import Hub
from fixtures.command_line import events_of, run

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.loopback

FILES = {
    "config.json": b'{"of": 1}\n',
    "model.safetensors": b"\x02\0\0\0\0\0\0\0{}" + b"1" * 90_000,
    "onnx/model.onnx": b"o" * 80_000,
}
PICKED = '[{target = "hub:org/repo", include = ["*.json", "*.safetensors"]}]'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add("org/repo", FILES)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def names_in(snapshot: object) -> set[str]:
    root = Path(str(snapshot))
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}


def test_include_and_exclude_pick_files_of_a_repository(hub: Hub, tmp_path: Path) -> None:
    done = run("fetch", "hub:org/repo", "--include", "*.json", "--include", "*.safetensors")
    assert done.returncode == 0, done.stderr
    assert names_in(done.stdout.strip()) == {"config.json", "model.safetensors"}
    without = run("fetch", "hub:org/repo", "--exclude", "onnx/*", DIACHUNK_HOME=str(tmp_path / "other"))
    assert names_in(without.stdout.strip()) == {"config.json", "model.safetensors"}
    assert not any(request.file.startswith("onnx") for request in hub.requests)


def test_a_pattern_that_matches_nothing_is_said(hub: Hub) -> None:
    done = run("fetch", "hub:org/repo", "--include", "*.gguf")
    assert done.returncode != 0
    assert "*.gguf" in done.stderr


def test_a_set_picks_and_its_lock_knows_what_was_picked(hub: Hub, directory: Path, tmp_path: Path) -> None:
    (directory / "diachunk.toml").write_text(f"checkpoints = {PICKED}\n")
    first = preload()["hub:org/repo"]
    assert names_in(first) == {"config.json", "model.safetensors"}
    (entry,) = tomllib.loads((directory / "diachunk.lock").read_text())["checkpoint"]
    assert entry["target"] == "hub:org/repo --include '*.json' --include '*.safetensors'"
    hub.add("org/repo", {**FILES, "config.json": b'{"of": 2}\n'})
    again = preload(locking="exact", home=tmp_path / "fresh")["hub:org/repo"]
    assert again.manifest.id == first.manifest.id, "of the commit in the lock"


def test_another_pick_is_not_what_the_lock_says(hub: Hub, directory: Path) -> None:
    (directory / "diachunk.toml").write_text(f"checkpoints = {PICKED}\n")
    preload()
    (directory / "diachunk.toml").write_text('checkpoints = ["hub:org/repo"]\n')
    with pytest.raises(UsageError, match=r"does not cover hub:org/repo"):
        preload(locking="exact")
    assert names_in(preload()["hub:org/repo"]) == set(FILES)


def test_one_repository_may_be_named_twice_with_different_files(hub: Hub, directory: Path) -> None:
    (directory / "diachunk.toml").write_text(
        'checkpoints = [{target = "hub:org/repo", include = ["*.json"]},'
        ' {target = "hub:org/repo", include = ["onnx/*"]}]\n'
    )
    one, two = preload()
    assert (names_in(one), names_in(two)) == ({"config.json"}, {"onnx/model.onnx"})
    assert len(tomllib.loads((directory / "diachunk.lock").read_text())["checkpoint"]) == 2


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"target": "lab/dia", "include": ["*.json"]}, "files can be picked of hub:ORG/REPO alone"),
        ({"target": "hub:a/b", "include": "*.json"}, r"checkpoints\[1\].include: a list of strings"),
        ({"target": "hub:a/b", "exclude": [""]}, r"checkpoints\[1\].exclude: '' is no name or pattern"),
        ({"target": "hub:a/b", "exclude": ["a\nb"]}, "is no name or pattern"),
    ],
)
def test_a_pick_that_makes_no_sense_is_refused(value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        checkpoints("checkpoints", [value], SettingsFile())


@pytest.mark.parametrize("into", [["--place"], ["--into", "hub"]])
def test_what_is_placed_after_a_fetch_was_hashed_on_the_way(
    hub: Hub, directory: Path, tmp_path: Path, into: list[str]
) -> None:
    """From a manifest, whose files need no SHA-256 by themselves."""
    source = run("fetch", "hub:org/repo").stdout.strip()
    manifest = tmp_path / "repo.json"
    manifest.write_text(run("show", "hub:org/repo", "--manifest").stdout)
    words: list[str | Path] = ["fetch", manifest, "--origin", source, "--json", *into]
    done = run(*words, DIACHUNK_HOME=str(tmp_path / "other"), HF_HOME=str(tmp_path / "hf"))
    assert (done.returncode, done.stderr) == (0, "")
    events = events_of(done.stdout)
    assert _bytes_read_to_place(events) == 0
    assert os.path.isfile(tmp_path / "hf/hub/models--org--repo/refs/main")


def test_what_is_placed_after_a_set_was_fetched_was_hashed_on_the_way(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    source = run("fetch", "hub:org/repo").stdout.strip()
    (directory / "repo.json").write_text(run("show", "hub:org/repo", "--manifest").stdout)
    (directory / "diachunk.toml").write_text(
        f'checkpoints = [{{target = "repo.json", origins = ["{source}"]}}]\nplaces = ["hub"]\n'
    )
    done = run("fetch", "--json", DIACHUNK_HOME=str(tmp_path / "other"), HF_HOME=str(tmp_path / "hf"))
    assert (done.returncode, done.stderr) == (0, "")
    assert _bytes_read_to_place(events_of(done.stdout)) == 0
    assert os.path.isfile(tmp_path / "hf/hub/models--org--repo/refs/main")


def _bytes_read_to_place(events: list[dict[str, object]]) -> int:
    """What was hashed after the last file was complete, by the events."""
    complete = max(number for number, each in enumerate(events) if each["event"] == "file")
    (placed,) = [number for number, each in enumerate(events) if each["event"] == "placed"]
    assert complete < placed
    between = [each for each in events[complete:placed] if each["event"] == "progress"]
    parts = [part for each in between for part in each["parts"]]  # type: ignore[attr-defined]
    return sum(part.get("hashed_bytes", 0) for part in parts)
