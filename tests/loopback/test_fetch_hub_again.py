"""What was fetched from a Hub: asked for as little as possible again, usable elsewhere, never confused with claims."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.manifest import Manifest, encode
from diachunk.testing.hub import Hub
from fixtures.checkpoints import published, tree
from fixtures.command_line import run
from fixtures.hub_world import (
    MODEL,
    VOCODER,
    assert_is,
    bytes_asked,
    chunks_of,
    fetch_watched,
    hub_serving,
    in_parts,
    model_files,
    published_chunks,
    two_parts,
    url_recipe,
    vocoder_files,
)
from fixtures.watch import Told

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]


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


# --- what is asked of upstream -------------------------------------------------------------------------------


def test_a_pinned_recipe_asks_nothing_the_second_time(hub: Hub, pinned: Path, home: Path) -> None:
    first = fetch_watched(pinned, home)
    asked = len(hub.requests)
    again = fetch_watched(pinned, home)
    assert again.manifest.id == first.manifest.id
    assert len(hub.requests) == asked
    assert again.report.fetched_bytes == 0


def test_a_branch_is_asked_about_again_but_no_byte_is_fetched_twice(hub: Hub, home: Path) -> None:
    diachunk.fetch(f"hub:{MODEL}", home=home)
    asked = len(hub.requests)
    fetch_watched(f"hub:{MODEL}", home)
    assert bodies(hub, asked) == []
    assert len(hub.requests) <= asked + 4  # the plan and the fetch: commit and tree


def test_with_the_hub_gone_what_was_fetched_stands(hub: Hub, pinned: Path, home: Path) -> None:
    first = {target: diachunk.fetch(target, home=home) for target in (str(pinned), f"hub:{MODEL}")}
    hub.close()
    told = Told()
    for target, before in first.items():
        assert diachunk.fetch(target, home=home, progress=told).manifest.id == before.manifest.id
    assert any("as it was fetched before" in str(event) for event in told.events)


def test_offline_by_the_users_own_word_works_likewise(hub: Hub, pinned: Path, home: Path) -> None:
    target = f"hub:{VOCODER}"
    assert run("fetch", pinned, DIACHUNK_HOME=str(home)).returncode == 0
    assert run("fetch", target, DIACHUNK_HOME=str(home)).returncode == 0
    asked = len(hub.requests)
    for words in (pinned, target):
        done = run("fetch", words, DIACHUNK_HOME=str(home), HF_HUB_OFFLINE="1")
        assert done.returncode == 0, done.stderr
    assert len(hub.requests) == asked
    other = run("fetch", f"hub:{MODEL}", DIACHUNK_HOME=str(home), HF_HUB_OFFLINE="1")
    assert other.returncode == 5
    assert "HF_HUB_OFFLINE" in other.stderr


def test_a_second_checkpoint_fetches_none_of_what_it_shares(
    hub: Hub, pinned: Path, home: Path, tmp_path: Path
) -> None:
    diachunk.fetch(pinned, home=home)
    asked = len(hub.requests)
    recipe = tmp_path / "other.toml"
    recipe.write_text(f'name = "lab/other"\n[[component]]\nname = "codec"\nhub = "{VOCODER}"\n')
    snapshot = fetch_watched(recipe, home)
    assert bodies(hub, asked) == []
    assert snapshot.report.fetched_bytes == 0
    assert_is(snapshot, in_parts(codec=vocoder_files()), home)


def test_a_file_that_was_published_here_from_the_disk_is_not_fetched(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    root = tree(tmp_path / "mine", {"codec.bin": vocoder_files()["codec.bin"]})
    diachunk.publish([str(root)], name="lab/mine", home=home)
    fetch_watched(f"hub:{VOCODER}", home)
    assert bodies(hub) == ["config.json"]


def test_the_same_file_twice_in_one_recipe_is_fetched_once(hub: Hub, home: Path, tmp_path: Path) -> None:
    data = vocoder_files()["codec.bin"]
    hub.add("lab/twice", {"a.bin": data, "deep/b.bin": data, "one.txt": b"same", "two.txt": b"same"})
    snapshot = fetch_watched("hub:lab/twice", home)
    assert {file.path for _, file in snapshot.manifest.walk()} == {
        "a.bin",
        "deep/b.bin",
        "one.txt",
        "two.txt",
    }
    assert hub.bytes_sent("*.bin") == len(data)
    assert chunks_of(snapshot.manifest) == published_chunks(
        tmp_path / "disk", {"a.bin": data, "deep/b.bin": data, "one.txt": b"same", "two.txt": b"same"}
    )


def test_a_file_stated_by_two_kinds_of_digest_ends_as_one_blob(hub: Hub, home: Path, tmp_path: Path) -> None:
    data = vocoder_files()["codec.bin"]
    hub.add("lab/as-git", {"codec.dat": data}, lfs=())
    recipe = tmp_path / "both.toml"
    recipe.write_text(
        f'name = "lab/both"\n[[component]]\nname = "a"\nhub = "{VOCODER}"\n'
        '[[component]]\nname = "b"\nhub = "lab/as-git"\n'
    )
    snapshot = fetch_watched(recipe, home)
    assert_is(snapshot, in_parts(a=vocoder_files(), b={"codec.dat": data}), home)
    asked = len(hub.requests)
    fetch_watched("hub:lab/as-git", home)
    assert bodies(hub, asked) == [], "its git id was computed here"


# --- by id and by file, elsewhere ----------------------------------------------------------------------------


def elsewhere(hub: Hub, tmp_path: Path, target: str | Path) -> Path:
    """The manifest as another machine publishes it; returns its file."""
    return diachunk.publish([target], home=tmp_path / "publisher", out=tmp_path / "m.json").file or Path()


def test_a_manifest_of_a_repository_takes_the_hub_as_its_origin(
    hub: Hub, pinned: Path, home: Path, tmp_path: Path
) -> None:
    file = elsewhere(hub, tmp_path, pinned)
    asked = len(hub.requests)
    snapshot = fetch_watched(file, home)
    assert_is(snapshot, in_parts(model=model_files(), vocoder=vocoder_files()), home)
    assert hub.requests[asked:]
    assert not [each for each in hub.requests[asked:] if each.path.startswith("/api/")]
    assert 404 not in {each.status for each in hub.requests[asked:]}, "each for its own component's files"


def test_wrong_bytes_are_noticed_chunk_by_chunk_then(hub: Hub, home: Path, tmp_path: Path) -> None:
    file = elsewhere(hub, tmp_path, f"hub:{VOCODER}")
    good = tree(tmp_path / "mirror", vocoder_files())
    hub.damage("codec.bin", at_byte=9_000_000)
    before = hub.bytes_sent("*.bin")
    snapshot = fetch_watched(file, home, origins=[str(good)])
    assert_is(snapshot, vocoder_files(), home)
    assert hub.bytes_sent("*.bin") - before <= len(vocoder_files()["codec.bin"])


def test_repair_takes_a_damaged_chunk_from_the_hub(hub: Hub, home: Path) -> None:
    snapshot = diachunk.fetch(f"hub:{VOCODER}", home=home)
    blob = (snapshot.directory / "codec.bin").resolve()
    blob.chmod(0o644)
    with blob.open("r+b") as opened:
        opened.seek(5_000_000)
        opened.write(b"rot")
    blob.chmod(0o444)
    before = bytes_asked(hub, "codec.bin")
    assert diachunk.verify([snapshot.manifest.hex_id], home=home, repair=True).ok
    assert bytes_asked(hub, "codec.bin") - before == 4 << 20
    assert blob.read_bytes() == vocoder_files()["codec.bin"]


# --- claims ---------------------------------------------------------------------------------------------------


def forged(manifest: Manifest, files: dict[str, bytes], tmp_path: Path) -> Path:
    """Other files under the name, revision and upstreams of a recipe's manifest."""
    made = published(tree(tmp_path / "forged", files), "lab/forged").manifest
    entries = {(each.name, file.path): file for each, file in made.walk()}
    components = tuple(
        dataclasses.replace(
            each, files=tuple(entries.get((each.name, file.path), file) for file in each.files)
        )
        for each in manifest.components
    )
    path = tmp_path / "forged.json"
    path.write_bytes(encode(dataclasses.replace(manifest, components=components)))
    return path


def test_a_manifest_that_only_claims_to_be_the_recipes_is_never_taken_for_it(
    hub: Hub, pinned: Path, home: Path, tmp_path: Path
) -> None:
    true = diachunk.publish([pinned], home=tmp_path / "publisher").manifest
    lies = in_parts(
        model={**model_files(), "config.json": b"evil"}, vocoder={**vocoder_files(), "codec.bin": b"evil"}
    )
    file = forged(true, lies, tmp_path)
    false = diachunk.fetch(file, origins=[str(tmp_path / "forged")], home=home).manifest
    assert false.id != true.id
    assert false.ref == true.ref
    snapshot = fetch_watched(pinned, home)
    assert snapshot.manifest.id == true.id
    assert (snapshot.directory / "vocoder" / "codec.bin").read_bytes() == vocoder_files()["codec.bin"]


def test_a_sha256_that_only_a_manifest_claims_is_not_believed(hub: Hub, home: Path, tmp_path: Path) -> None:
    """The manifest says of its own bytes that they have the sha256 that the Hub states for others."""
    made = published(tree(tmp_path / "forged", {"codec.bin": b"x" * 300_000}), "lab/claims")
    wanted = hub.file(VOCODER, "codec.bin").sha256
    component = made.manifest.components[0]
    entry = dataclasses.replace(component.files[0], sha256=wanted)
    lying = dataclasses.replace(made.manifest, components=(dataclasses.replace(component, files=(entry,)),))
    (tmp_path / "lying.json").write_bytes(encode(lying))
    diachunk.fetch(tmp_path / "lying.json", origins=[str(tmp_path / "forged")], home=home)
    assert_is(diachunk.fetch(f"hub:{VOCODER}", home=home), vocoder_files(), home)


def test_chunks_that_the_rule_would_not_cut_do_not_change_the_id(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    """A stored manifest may cut a file otherwise: the recipe's is what every machine finds."""
    expected = diachunk.publish([f"hub:{VOCODER}"], home=tmp_path / "clean").manifest.id
    from store_files import chunk_list

    data = vocoder_files()["codec.bin"]
    made = published(tree(tmp_path / "odd", {"codec.bin": data}), "lab/odd")
    component = made.manifest.components[0]
    pieces = [data[start : start + 1_000_000] for start in range(0, len(data), 1_000_000)]
    entry = dataclasses.replace(component.files[0], chunks=chunk_list(pieces))
    odd = dataclasses.replace(made.manifest, components=(dataclasses.replace(component, files=(entry,)),))
    (tmp_path / "odd.json").write_bytes(encode(odd))
    diachunk.fetch(tmp_path / "odd.json", origins=[str(tmp_path / "odd")], home=home)
    assert diachunk.fetch(f"hub:{VOCODER}", home=home).manifest.id == expected


# --- plain URLs -----------------------------------------------------------------------------------------------


def test_a_recipe_of_urls_needs_no_hub_and_no_library(home: Path, tmp_path: Path) -> None:
    from diachunk.testing.servers import Nginx

    served = tree(tmp_path / "served", vocoder_files())
    with Nginx(served) as origin:
        recipe = url_recipe(tmp_path / "codec.toml", origin.url, vocoder_files())
        code = (
            "import sys\n"
            "sys.modules['huggingface_hub'] = None\n"
            "import diachunk\n"
            f"print(diachunk.fetch({str(recipe)!r}, home={str(home)!r}).manifest.hex_id)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), timeout=60
        )
        assert done.returncode == 0, done.stderr
        again = fetch_watched(recipe, tmp_path / "second")
    assert again.manifest.hex_id == done.stdout.strip()
    assert_is(again, in_parts(codec=vocoder_files()), tmp_path / "second")
