"""One component of a recipe alone: fetched, found again, and nothing of it twice when more is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.config import load_config
from diachunk.errors import Interrupted, TransferIncomplete, TrustError, UsageError
from diachunk.manifest import Manifest
from diachunk.store.store import Store
from diachunk.testing.hub import Hub
from fixtures.checkpoints import tree
from fixtures.command_line import run
from fixtures.hub_world import (
    MIB,
    MODEL,
    VOCODER,
    RecipeProcess,
    assert_is,
    hub_serving,
    in_parts,
    left_in,
    model_files,
    noise,
    total_bytes,
    two_parts,
    url_component,
    vocoder_files,
)
from fixtures.watch import Told

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

PART = "lab/two@main.vocoder"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(monkeypatch) as serving:
        yield serving


@pytest.fixture
def recipe(hub: Hub, tmp_path: Path) -> Path:
    """Pinned."""
    commits = [hub.add(MODEL, model_files()), hub.add(VOCODER, vocoder_files())]
    return two_parts(tmp_path, commits=commits)


def bodies(hub: Hub, since: int = 0) -> set[str]:
    """Files of which bytes were asked for."""
    return {each.file for each in hub.requests[since:] if each.file and each.method == "GET"}


def fetched(recipe: Path, home: Path, *components: str) -> diachunk.Snapshot:
    """Fetches; what is told adds up to what was planned."""
    plan = diachunk.plan(recipe, components=components, home=home)
    told = Told()
    snapshot = diachunk.fetch(recipe, components=components, home=home, progress=told)
    assert told.total_bytes == plan.total_bytes
    assert snapshot.report.fetched_bytes == plan.fetch_bytes
    return snapshot


def refs(home: Path) -> list[str]:
    return [str(each) for each in Store.open(home).catalog.refs()]


# --- what is fetched -----------------------------------------------------------------------------------------


def test_a_component_is_fetched_alone_and_the_others_repositories_are_not_even_asked(
    hub: Hub, recipe: Path, home: Path
) -> None:
    asked = len(hub.requests)
    snapshot = fetched(recipe, home, "vocoder")
    assert_is(snapshot, in_parts(vocoder=vocoder_files()), home)
    assert snapshot.manifest.ref == PART
    assert snapshot.report.fetched_bytes == total_bytes(vocoder_files())
    assert all(MODEL not in each.path for each in hub.requests[asked:])


def test_a_part_has_one_id_on_every_machine_and_another_than_the_whole(
    recipe: Path, home: Path, tmp_path: Path
) -> None:
    part = fetched(recipe, home, "vocoder").manifest
    other = tmp_path / "other"
    whole = fetched(recipe, other).manifest
    assert fetched(recipe, tmp_path / "third", "vocoder").manifest.id == part.id != whole.id


def test_the_second_time_nobody_is_asked(hub: Hub, recipe: Path, home: Path) -> None:
    first = fetched(recipe, home, "vocoder")
    asked = len(hub.requests)
    assert fetched(recipe, home, "vocoder").manifest.id == first.manifest.id
    assert len(hub.requests) == asked


def test_of_branches_the_part_follows_its_own(hub: Hub, home: Path, tmp_path: Path) -> None:
    recipe = two_parts(tmp_path)
    first = fetched(recipe, home, "vocoder")
    hub.add(MODEL, {"config.json": b"another\n"})
    assert fetched(recipe, home, "vocoder").manifest.id == first.manifest.id
    hub.add(VOCODER, {**vocoder_files(), "config.json": b"another\n"})
    second = fetched(recipe, home, "vocoder")
    assert second.manifest.id != first.manifest.id
    assert second.report.fetched_bytes == len(b"another\n")
    hub.close()
    assert diachunk.fetch(recipe, components=["vocoder"], home=home).manifest.id == second.manifest.id


def test_of_a_whole_that_moved_on_upstream_nothing_more_is_fetched_than_was_asked_for(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    recipe = two_parts(tmp_path)
    fetched(recipe, home)
    hub.add(MODEL, {**model_files(), "more.bin": noise("more", 200_000)})
    hub.add(VOCODER, {**vocoder_files(), "config.json": b"another\n"})
    part = fetched(recipe, home, "vocoder")
    assert part.manifest.ref == PART
    assert part.report.fetched_bytes == len(b"another\n")


# --- a part and the whole, in every order --------------------------------------------------------------------


def test_the_whole_fetches_what_the_part_left(hub: Hub, recipe: Path, home: Path) -> None:
    part = fetched(recipe, home, "vocoder")
    asked = len(hub.requests)
    whole = fetched(recipe, home)
    assert_is(whole, in_parts(model=model_files(), vocoder=vocoder_files()), home)
    assert whole.manifest.ref == "lab/two@main"
    assert whole.report.fetched_bytes == total_bytes(model_files())
    assert bodies(hub, asked) == {path for path, data in model_files().items() if data}
    assert part.path("vocoder/codec.bin").read_bytes() == vocoder_files()["codec.bin"], "still shown"


def test_the_id_of_the_whole_does_not_depend_on_parts_before_it(
    recipe: Path, home: Path, tmp_path: Path
) -> None:
    for each in ("vocoder", "model"):
        fetched(recipe, home, each)
    assert fetched(recipe, home).manifest.id == fetched(recipe, tmp_path / "fresh").manifest.id


def test_once_the_whole_is_here_a_component_is_of_it(hub: Hub, recipe: Path, home: Path) -> None:
    whole = fetched(recipe, home)
    asked = len(hub.requests)
    snapshot = fetched(recipe, home, "vocoder")
    assert snapshot.manifest.id == whole.manifest.id
    assert len(hub.requests) == asked
    assert Store.open(home).catalog.ids() == [whole.manifest.id]


def test_the_whole_comes_before_a_part(recipe: Path, home: Path) -> None:
    fetched(recipe, home, "vocoder")
    whole = fetched(recipe, home)
    assert fetched(recipe, home, "vocoder").manifest.id == whole.manifest.id
    assert diachunk.show(str(recipe), home=home)[0].id == whole.manifest.id


def three(tmp_path: Path, hub: Hub) -> Path:
    """A recipe of three components."""
    commit = hub.add("lab/voices", {"anna.bin": noise("anna", 70_000)})
    commits = [hub.add(MODEL, model_files()), hub.add(VOCODER, vocoder_files())]
    path = two_parts(tmp_path, commits=commits, name="lab/three")
    voices = f'[[component]]\nname = "voices"\nhub = "lab/voices"\nrevision = "{commit}"\n'
    path.write_text(path.read_text() + voices)
    return path


def test_two_parts_and_a_part_of_both(hub: Hub, home: Path, tmp_path: Path) -> None:
    recipe = three(tmp_path, hub)
    one, two = fetched(recipe, home, "vocoder"), fetched(recipe, home, "voices")
    both = fetched(recipe, home, "voices", "vocoder")
    assert [each.manifest.revision for each in (one, two, both)] == [
        "main.vocoder",
        "main.voices",
        "main.vocoder.voices",
    ]
    assert both.report.fetched_bytes == 0
    assert_is(both, in_parts(vocoder=vocoder_files(), voices={"anna.bin": noise("anna", 70_000)}), home)


def test_a_larger_part_that_is_here_will_do(hub: Hub, home: Path, tmp_path: Path) -> None:
    recipe = three(tmp_path, hub)
    both = fetched(recipe, home, "vocoder", "voices")
    asked = len(hub.requests)
    assert fetched(recipe, home, "voices").manifest.id == both.manifest.id
    assert len(hub.requests) == asked


def test_an_unfinished_whole_leaves_its_beginning_to_the_part(hub: Hub, recipe: Path, home: Path) -> None:
    def stop(event: object) -> None:
        if isinstance(event, diachunk.FileDone) and event.path == "codec.bin":
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        diachunk.fetch(recipe, home=home, progress=stop)
    asked = len(hub.requests)
    fetched(recipe, home, "vocoder")
    assert "codec.bin" not in bodies(hub, asked)


def test_into_a_directory_a_part_lies_as_it_does_of_the_whole(
    recipe: Path, home: Path, tmp_path: Path
) -> None:
    shown = tmp_path / "shown"
    diachunk.fetch(recipe, components=["vocoder"], to=shown, home=home)
    assert (shown / "vocoder" / "codec.bin").read_bytes() == vocoder_files()["codec.bin"]
    diachunk.fetch(recipe, to=shown, home=home)
    assert (shown / "model" / "plain.bin").read_bytes() == model_files()["plain.bin"]


def test_a_part_and_the_whole_side_by_side_take_one_copy(hub: Hub, recipe: Path, home: Path) -> None:
    hub.slow_down(24 * MIB, of="*")
    with RecipeProcess(recipe, home) as process:
        process.wait_for_bytes(1 * MIB)
        part = diachunk.fetch(recipe, components=["vocoder"], home=home)
        code, said = process.end()
    assert code == 0, said
    assert_is(part, in_parts(vocoder=vocoder_files()), home)
    assert hub.bytes_sent("codec.bin") < 1.5 * len(vocoder_files()["codec.bin"])
    assert diachunk.show(str(recipe), home=home)[0].ref == "lab/two@main"


# --- names ---------------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> str:
    """The recipe as one that ships with the package: what a name stands for."""
    monkeypatch.setattr("diachunk.api.recipes.bundled", lambda pattern: iter([recipe]))
    return "lab/two"


def test_the_name_never_stands_for_a_part(shipped: str, home: Path) -> None:
    part = diachunk.fetch(shipped, components=["vocoder"], home=home)
    assert refs(home) == [PART]
    assert part.directory == home / "snapshots" / PART
    whole = diachunk.fetch(shipped, home=home)
    assert refs(home) == ["lab/two@main", PART]
    assert whole.directory == home / "snapshots" / "lab/two@main"


def test_a_part_is_a_target_of_its_own(shipped: str, home: Path, tmp_path: Path) -> None:
    part = diachunk.fetch(PART, home=home)
    assert part.manifest.ref == PART
    assert diachunk.fetch(shipped, components=["vocoder"], home=home).manifest.id == part.manifest.id
    other = tmp_path / "other"
    diachunk.fetch(shipped, home=other)
    assert diachunk.fetch(PART, home=other).manifest.id == part.manifest.id


def test_the_name_alone_is_not_read_as_the_part_and_says_so(recipe: Path, home: Path) -> None:
    fetched(recipe, home, "vocoder")
    for look in (diachunk.show, diachunk.rm, diachunk.verify):
        with pytest.raises(UsageError, match=f"was not fetched here yet; of it, {PART} is") as caught:
            look(str(recipe), home=home)
        assert f"diachunk fetch {recipe}" in caught.value.hint
    assert diachunk.show(PART, home=home)[0].ref == PART
    assert diachunk.verify([PART], home=home).ok


def test_a_component_that_there_is_not_is_refused_before_anybody_is_asked(
    hub: Hub, recipe: Path, home: Path
) -> None:
    asked = len(hub.requests)
    with pytest.raises(UsageError, match="no component 'modle'"):
        diachunk.fetch(recipe, components=["modle"], home=home)
    assert len(hub.requests) == asked


def test_of_a_pinned_name_no_part_is_taken_that_nobody_can_compare(
    shipped: str, home: Path, tmp_path: Path
) -> None:
    whole = diachunk.fetch(shipped, home=tmp_path / "other").manifest
    part = diachunk.fetch(PART, home=tmp_path / "other").manifest
    config = load_config({"DIACHUNK_HOME": str(home)})
    pinned = replace(config, pins={whole.ref: whole.hex_id})
    with pytest.raises(TrustError, match="is pinned to") as caught:
        diachunk.fetch(shipped, components=["vocoder"], settings=pinned)
    assert f"pin {PART} as well" in caught.value.hint
    both = replace(config, pins={whole.ref: whole.hex_id, PART: part.hex_id})
    assert diachunk.fetch(shipped, components=["vocoder"], settings=both).manifest.id == part.id
    wrong = replace(config, home=tmp_path / "third", pins={whole.ref: whole.hex_id, PART: "0" * 64})
    for there in (wrong, replace(both, pins=wrong.pins)):  # drawn now, or before it was pinned
        with pytest.raises(TrustError, match="is pinned to"):
            diachunk.fetch(shipped, components=["vocoder"], settings=there)


def test_a_manifest_that_only_claims_to_be_a_part_is_not_taken_for_it(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    recipe = three(tmp_path, hub)
    evil = tree(tmp_path / "evil", {"vocoder/codec.bin": b"evil", "voices/anna.bin": b"evil"})
    sources = [f"{each}={evil / each}" for each in ("vocoder", "voices")]
    for revision in ("main.vocoder", "main.vocoder.voices"):
        diachunk.publish(sources, name="lab/three", revision=revision, home=home)
    part = fetched(recipe, home, "vocoder")
    assert_is(part, in_parts(vocoder=vocoder_files()), home)
    with pytest.raises(UsageError) as caught:
        diachunk.show(str(recipe), home=home)
    assert caught.value.message.endswith("of it, lab/three@main.vocoder is"), "and not the claim of two"
    assert fetched(recipe, home, "voices").path("voices/anna.bin").read_bytes() != b"evil"
    assert diachunk.show("lab/three@main.vocoder", home=home)[0].id != part.manifest.id, "the name is taken"


# --- looking after it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [True, False])
def test_gc_keeps_a_part_and_what_the_whole_and_it_need(
    shipped: str, recipe: Path, home: Path, by_name: bool
) -> None:
    target = shipped if by_name else str(recipe)
    part = diachunk.fetch(target, components=["vocoder"], home=home).manifest
    diachunk.gc(home=home, max_bytes=None)
    assert diachunk.verify([part.hex_id], home=home).ok
    whole = diachunk.fetch(target, home=home).manifest
    _, collected = diachunk.rm([whole.hex_id], home=home)
    assert collected.notes == [f"{PART}, a part of it, stays here, and so do its files"]
    assert diachunk.verify([part.hex_id], home=home).ok
    assert collected.freed_bytes >= total_bytes(model_files())
    diachunk.rm([PART], home=home)
    assert list((home / "blobs").rglob("*.stamp")) == []
    assert left_in(home / "recipes") == []


def test_ls_and_show_say_what_it_is_a_part_of(shipped: str, home: Path) -> None:
    diachunk.fetch(shipped, components=["vocoder"], home=home)
    diachunk.fetch(shipped, home=home)
    assert sorted(each.part_of for each in diachunk.ls(home=home).held) == ["", "lab/two@main"]
    listed = run("ls", DIACHUNK_HOME=str(home)).stdout
    assert f"{PART}, a part of lab/two@main\n" in listed
    assert "part of  lab/two@main\n" in run("show", PART, DIACHUNK_HOME=str(home)).stdout


def test_what_is_damaged_in_a_part_is_mended(recipe: Path, home: Path) -> None:
    part = fetched(recipe, home, "vocoder")
    blob = part.path("vocoder/codec.bin").resolve()
    blob.chmod(0o644)
    with blob.open("r+b") as opened:
        opened.write(b"rot")
    assert diachunk.verify([PART], home=home, repair=True).ok
    assert blob.read_bytes() == vocoder_files()["codec.bin"]


def test_place_finds_the_part_by_the_component(recipe: Path, home: Path, tmp_path: Path) -> None:
    fetched(recipe, home, "vocoder")
    shown = tmp_path / "shown"
    placed = diachunk.place(recipe, components=["vocoder"], into=[shown], home=home)
    assert placed.manifest.ref == PART
    assert (shown / "vocoder" / "codec.bin").read_bytes() == vocoder_files()["codec.bin"]
    with pytest.raises(UsageError, match="not fetched here yet") as caught:
        diachunk.place(recipe, components=["model"], into=[shown], home=home)
    assert caught.value.hint == f"diachunk fetch {recipe} --component model --place"
    fetched(recipe, home)
    with pytest.raises(UsageError, match="nothing of lab/two@main was placed") as caught:
        diachunk.place(recipe, undo=True, home=home)
    assert caught.value.hint == f"diachunk place {PART} --undo"
    assert diachunk.place(PART, undo=True, home=home).removed


# --- what is private stays so --------------------------------------------------------------------------------


def is_private(manifest: Manifest, home: Path) -> bool:
    return Store.open(home).catalog.is_private(manifest.id)


@pytest.mark.parametrize("order", [("vocoder",), (), ("model",)])
def test_what_took_a_credential_stays_private_in_whatever_it_is_part_of(
    hub: Hub, recipe: Path, home: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    hub.private[VOCODER] = "hf_s3cret"
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    first = fetched(recipe, home, *order).manifest
    assert is_private(first, home) == (order != ("model",))
    del hub.private[VOCODER]  # what was private when it came is not published by the next who lists it
    assert is_private(fetched(recipe, home).manifest, home) == (order != ("model",))


def test_a_part_that_takes_no_credential_can_be_had_where_another_does(
    hub: Hub, recipe: Path, home: Path
) -> None:
    hub.private[MODEL] = "hf_s3cret"
    assert not is_private(fetched(recipe, home, "vocoder").manifest, home)


# --- URLs ----------------------------------------------------------------------------------------------------


def test_of_urls_only_those_of_the_component_are_asked(home: Path, tmp_path: Path) -> None:
    from diachunk.testing.servers import Nginx

    recipe = tmp_path / "urls.toml"
    with Nginx(tree(tmp_path / "served", vocoder_files())) as origin:
        lines = [
            'name = "lab/urls"',
            *url_component("model", "http://127.0.0.1:9", {"model.bin": b"nowhere"}),
            *url_component("vocoder", origin.url, vocoder_files()),
        ]
        recipe.write_text("\n".join(lines) + "\n")
        assert_is(fetched(recipe, home, "vocoder"), in_parts(vocoder=vocoder_files()), home)
    with pytest.raises(TransferIncomplete):
        diachunk.fetch(recipe, home=home, patience_s=0.1)
    assert Context.make(home).store.catalog.ids(), "the part is as it was"
