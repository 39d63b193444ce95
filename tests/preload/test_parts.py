"""A set that names some components of a recipe: one id in the lock, whatever else a machine has."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.sets.checkpoint_set import PreloadFailed
from diachunk.api.sets.preloading import plan_preload, preload
from diachunk.errors import DiachunkError, TrustError
from diachunk.store.store import Store
from diachunk.testing.hub import Hub
from fixtures.command_line import run
from fixtures.hub_world import MODEL, VOCODER, hub_serving, two_parts
from fixtures.settings import write_config

pytest.importorskip("huggingface_hub")
pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

FILES = {
    MODEL: {"config.json": b'{"of": 1}\n', "model.bin": b"1" * 190_000},
    VOCODER: {"config.json": b'{"of": 2}\n', "model.bin": b"2" * 90_000},
}
TARGET = "./recipe.toml"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(monkeypatch, FILES) as serving:
        yield serving


@pytest.fixture
def directory(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    two_parts(made, commits=[hub.add(name, files) for name, files in FILES.items()])
    monkeypatch.chdir(made)
    return made


def wanting(directory: Path, *components: list[str], target: str = TARGET) -> None:
    """Writes the set: an entry for each list; an empty one is for all."""
    entries = [
        f'{{target = "{target}", components = {each!r}, to = "shown-{number}"}}'
        for number, each in enumerate(components)
    ]
    (directory / "diachunk.toml").write_text(f"checkpoints = [{', '.join(entries)}]\n")


def locked(directory: Path) -> dict[str, object]:
    (entry,) = tomllib.loads((directory / "diachunk.lock").read_text())["checkpoint"]
    return dict(entry)


def failure() -> DiachunkError:
    """What a preload ends with that keeps to the lock; the same as its plan says."""
    (planned,) = plan_preload().checkpoints
    with pytest.raises(PreloadFailed) as caught:
        preload()
    ((_, error),) = caught.value.failures
    assert planned.error is not None
    assert planned.error.message == error.message
    return error


def test_a_component_of_a_recipe_is_fetched_alone_and_locked(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    wanting(directory, ["vocoder"])
    plan = plan_preload()
    first = preload()[TARGET]
    assert plan.fetch_bytes == first.manifest.total_bytes == sum(map(len, FILES[VOCODER].values()))
    assert not any(MODEL in each.path for each in hub.requests)
    entry = locked(directory)
    assert (entry["revision"], entry["id"]) == ("main.vocoder", first.manifest.hex_id)
    assert (entry["total_bytes"], entry["files"]) == (first.manifest.total_bytes, 2)
    assert (directory / "shown-0" / "vocoder" / "model.bin").read_bytes() == FILES[VOCODER]["model.bin"]
    again = preload(locking="exact", home=tmp_path / "fresh")[TARGET]
    assert again.manifest.id == first.manifest.id
    hub.close()
    assert preload(locking="exact")[TARGET].manifest.id == first.manifest.id


def test_the_lock_is_the_same_where_the_whole_is_here_and_nobody_is_asked_for_it(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    wanting(directory, ["vocoder"])
    whole = diachunk.fetch(TARGET).manifest
    asked = len(hub.requests)
    here = preload()[TARGET].manifest
    assert len(hub.requests) == asked
    assert here.id != whole.id
    text = (directory / "diachunk.lock").read_text()
    (directory / "diachunk.lock").unlink()
    preload(home=tmp_path / "fresh")
    assert (directory / "diachunk.lock").read_text() == text


def test_a_lock_of_a_part_is_kept_to_where_only_the_whole_is_here(
    hub: Hub, directory: Path, tmp_path: Path
) -> None:
    wanting(directory, ["vocoder"])
    part = preload()[TARGET].manifest
    other = tmp_path / "other"
    diachunk.fetch(TARGET, home=other)
    hub.close()
    assert preload(locking="exact", home=other)[TARGET].manifest.id == part.id
    assert diachunk.fetch(TARGET, components=["vocoder"], home=other).manifest.revision == "main"


def test_what_was_made_of_the_whole_stays_when_that_is_removed(hub: Hub, directory: Path) -> None:
    wanting(directory, ["vocoder"])
    whole = diachunk.fetch(TARGET).manifest
    part = preload()[TARGET].manifest
    diachunk.rm([whole.hex_id])
    hub.close()
    assert diachunk.fetch(TARGET, components=["vocoder"]).manifest.id == part.id


def test_a_part_of_what_took_a_credential_is_private_as_well(
    hub: Hub, directory: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.private[VOCODER] = "hf_s3cret"
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    wanting(directory, ["vocoder"])
    diachunk.fetch(TARGET, home=home)
    part = preload(home=home)[TARGET].manifest
    assert part.revision == "main.vocoder"
    assert Store.open(home).catalog.is_private(part.id)


def test_of_a_name_that_stands_for_the_whole_here_it_is_the_same(
    hub: Hub, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = directory / "recipe.toml"
    monkeypatch.setattr("diachunk.api.recipes.bundled", lambda pattern: iter([bundled]))
    wanting(directory, ["vocoder"], target="lab/two")
    diachunk.fetch("lab/two")
    part = preload()["lab/two"].manifest
    assert part.ref == "lab/two@main.vocoder"
    assert preload(locking="exact", home=tmp_path / "fresh")["lab/two"].manifest.id == part.id


def test_a_set_without_a_lock_takes_the_whole_where_that_is_here(directory: Path, base: Path) -> None:
    target = str(directory / "recipe.toml")
    write_config(base, {}, f'checkpoints = [{{target = "{target}", components = ["vocoder"]}}]')
    assert preload()[target].manifest.revision == "main.vocoder"
    whole = diachunk.fetch(target).manifest
    assert preload()[target].manifest.id == whole.id


def test_several_entries_of_one_recipe_have_one_part_between_them(directory: Path) -> None:
    voices = '[[component]]\nname = "voices"\nhub = "lab/vocoder"\nfiles = ["config.json"]\n'
    recipe = directory / "recipe.toml"
    recipe.write_text(recipe.read_text() + voices)
    wanting(directory, ["voices"], ["vocoder"])
    one, two = preload()
    assert one.manifest.id == two.manifest.id
    assert locked(directory)["revision"] == "main.vocoder.voices"
    assert sorted(os.listdir(directory / "shown-0")) == ["voices"]
    assert sorted(os.listdir(directory / "shown-1")) == ["vocoder"]
    assert len(preload(locking="exact")) == 2


@pytest.mark.parametrize("wanted", [["model"], []])
def test_who_wants_more_than_was_locked_is_told_and_can_renew_the_lock(
    directory: Path, wanted: list[str]
) -> None:
    wanting(directory, ["vocoder"])
    preload()
    wanting(directory, wanted)
    error = failure()
    assert isinstance(error, TrustError)
    assert "lab/two@main.vocoder, without model" in error.message
    assert "--update" in error.hint
    renewed = preload(locking="update")[TARGET].manifest
    assert {each.name for each in renewed.components} == set(wanted or ["model", "vocoder"])
    assert locked(directory)["id"] == renewed.hex_id


def test_who_wants_less_keeps_to_the_lock(hub: Hub, directory: Path) -> None:
    wanting(directory, [])
    whole = preload()[TARGET].manifest
    wanting(directory, ["vocoder"])
    asked = len(hub.requests)
    assert preload(locking="exact")[TARGET].manifest.id == whole.id
    assert len(hub.requests) == asked


def test_a_lock_of_the_whole_where_a_part_is_wanted_says_how_much_that_is(
    hub: Hub, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanting(directory, [])
    whole = preload()[TARGET].manifest
    wanting(directory, ["vocoder"])
    monkeypatch.setenv("DIACHUNK_HOME", str(tmp_path / "fresh"))
    sent = hub.bytes_sent()
    error = failure()
    assert isinstance(error, TrustError)
    assert f"{whole.hex_id}, which is lab/two@main ({whole.total_bytes:,} bytes)" in error.message
    assert hub.bytes_sent() == sent
    assert preload(locking="update")[TARGET].manifest.revision == "main.vocoder"


def test_what_a_program_runs_with_may_be_a_part(directory: Path) -> None:
    (directory / "diachunk.toml").write_text(
        f'checkpoints = [{{target = "{TARGET}", components = ["vocoder"], places = ["hub"]}}]\n'
    )
    for _ in range(2):
        done = run("run", "--", "true", HF_HOME=str(directory / "hf"))
        assert done.returncode == 0, done.stderr
    (found,) = (directory / "hf").rglob("model.bin")
    assert found.read_bytes() == FILES[VOCODER]["model.bin"]
