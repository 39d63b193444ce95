"""Recipes and `hub:` from an emulated Hub: the right files, the same manifest everywhere, nothing asked twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.manifest import decode
from diachunk.testing import faults
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from fixtures.checkpoints import tree
from fixtures.command_line import run
from fixtures.hub_world import (
    MODEL,
    VOCODER,
    assert_is,
    chunks_of,
    fetch_watched,
    hub_serving,
    in_parts,
    model_files,
    published_chunks,
    total_bytes,
    two_parts,
    vocoder_files,
)
from fixtures.watch import Told

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

BOTH = total_bytes(model_files(), vocoder_files())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(monkeypatch) as serving:
        yield serving


@pytest.fixture
def pinned(hub: Hub, tmp_path: Path) -> Path:
    commits = [hub.add(MODEL, model_files()), hub.add(VOCODER, vocoder_files())]
    return two_parts(tmp_path, commits=commits)


def bodies(hub: Hub, since: int = 0) -> list[str]:
    return [request.file for request in hub.requests[since:] if request.file and request.method == "GET"]


# --- the right files, the same manifest ----------------------------------------------------------------------


def test_a_repository_is_fetched_byte_for_byte(hub: Hub, home: Path) -> None:
    snapshot = fetch_watched(f"hub:{MODEL}", home)
    assert_is(snapshot, model_files(), home)
    assert snapshot.manifest.components[0].upstream["repository"] == MODEL
    assert hub.bytes_sent("*") <= total_bytes(model_files()) * 1.02


def test_it_is_cut_into_the_chunks_that_publishing_the_same_files_yields(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    snapshot = diachunk.fetch(f"hub:{MODEL}", home=home)
    chunks = chunks_of(snapshot.manifest)
    assert chunks == published_chunks(tmp_path / "disk", model_files())
    assert len(chunks["weights.pth"]) > len(model_files()["weights.pth"]) // (4 << 20) + 1, "cut by tensors"


@pytest.mark.parametrize("name", ["model.safetensors", "weights.pth", "model.gguf", "plain.bin"])
def test_whatever_order_its_ranges_come_in_the_manifest_is_the_same(
    hub: Hub, home: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = diachunk.fetch(f"hub:{MODEL}", home=home).manifest
    hub.fail(Part.BYTES, faults.Drip(3_000_000), of=name, times=1)
    hub.fail(Part.BYTES, faults.Close(700_000), of=name, times=2, skip=1)
    assert diachunk.fetch(f"hub:{MODEL}", home=tmp_path / "second").manifest.id == first.id


def test_publishing_and_fetching_by_every_name_yield_one_id(pinned: Path, tmp_path: Path) -> None:
    fetched = fetch_watched(pinned, tmp_path / "one")
    assert_is(fetched, in_parts(model=model_files(), vocoder=vocoder_files()), tmp_path / "one")
    published_here = diachunk.publish([pinned], home=tmp_path / "two", out=tmp_path / "out.json")
    assert published_here.manifest.id == fetched.manifest.id
    assert decode((tmp_path / "out.json").read_bytes()).id == fetched.manifest.id
    again = diachunk.publish([pinned], home=tmp_path / "one")
    assert again.manifest.id == fetched.manifest.id


def test_a_repository_has_one_id_by_its_branch_and_by_its_commit(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add(MODEL, model_files())
    ids = {
        diachunk.fetch(f"hub:{MODEL}", home=tmp_path / "a").manifest.id,
        diachunk.fetch(f"hub:{MODEL}@{commit}", home=tmp_path / "b").manifest.id,
        diachunk.publish([f"hub:{MODEL}@main"], home=tmp_path / "c").manifest.id,
    }
    assert len(ids) == 1


def bundle(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> None:
    """Has the package ship this recipe alone."""
    monkeypatch.setattr("diachunk.api.recipes.bundled", lambda pattern: [recipe])


def test_a_bundled_recipe_is_fetched_and_published_by_its_name(
    pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(monkeypatch, pinned)
    fetched = fetch_watched("lab/two", tmp_path / "one")
    store = Context.make(tmp_path / "one").store
    assert store.catalog.ref("lab/two", "main") == fetched.manifest.id
    assert diachunk.publish(["lab/two"], home=tmp_path / "two").manifest.id == fetched.manifest.id


def test_a_file_of_that_name_is_published_rather_than_the_bundled_recipe(
    pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle(monkeypatch, pinned)
    monkeypatch.chdir(tree(tmp_path / "here", {"lab/two/a.bin": b"mine"}))
    done = diachunk.publish(["lab/two"], name="lab/mine", home=tmp_path / "one")
    assert [file.path for _, file in done.manifest.walk()] == ["a.bin"]


def test_components_of_a_recipe_go_into_a_directory(pinned: Path, home: Path, tmp_path: Path) -> None:
    told = Told()
    plan = diachunk.plan(pinned, home=home, to=tmp_path / "out")
    diachunk.fetch(pinned, home=home, to=tmp_path / "out", progress=told)
    assert told.total_bytes == plan.total_bytes == BOTH
    for name, data in in_parts(model=model_files(), vocoder=vocoder_files()).items():
        assert (tmp_path / "out" / name).read_bytes() == data


def test_files_and_exclude_choose_and_what_is_not_chosen_is_not_fetched(hub: Hub, tmp_path: Path) -> None:
    recipe = tmp_path / "some.toml"
    recipe.write_text(
        f'name = "lab/some"\n[[component]]\nhub = "{MODEL}"\nfiles = ["*.json", "*.bin", "deep/*"]\n'
        'exclude = ["plain.*"]\n'
    )
    snapshot = fetch_watched(recipe, tmp_path / "store")
    assert_is(
        snapshot,
        {key: model_files()[key] for key in ("config.json", "deep/er/vocab.txt")},
        tmp_path / "store",
    )
    assert set(bodies(hub)) == {"config.json", "deep/er/vocab.txt"}


def test_the_command_line_prints_the_directory_and_nothing_else(hub: Hub, home: Path) -> None:
    done = run("fetch", f"hub:{VOCODER}", DIACHUNK_HOME=str(home))
    assert done.returncode == 0, done.stderr
    directory = Path(done.stdout.strip())
    assert (directory / "codec.bin").read_bytes() == vocoder_files()["codec.bin"]


def test_what_came_by_a_credential_says_so(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "access" not in diachunk.fetch(f"hub:{VOCODER}", home=home).manifest.hints_extra
    hub.add("lab/closed", {"a.txt": b"a"})
    hub.private["lab/closed"] = "hf_users"
    monkeypatch.setenv("HF_TOKEN", "hf_users")
    assert diachunk.fetch("hub:lab/closed", home=home).manifest.hints_extra["access"] == "credential"
