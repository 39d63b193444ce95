"""Which components go where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diachunk.api.placing import Placed, place_manifest
from diachunk.errors import UsageError
from diachunk.manifest import Manifest
from fixtures.placing import CODEC, CODEC_COMMIT, CONFIG, WEIGHTS, World, component, from_hub, manifest_of

MODEL = {"config.json": CONFIG, "pytorch_model.bin": WEIGHTS}
VOCODER = {"checkpoint.pth": WEIGHTS[:100_000]}


def native(world: World, *places: Any) -> Manifest:
    made = manifest_of(from_hub("model", MODEL), component("vocoder", VOCODER), places=places)
    return world.keep(made, MODEL, VOCODER)


def where(placed: Placed) -> set[tuple[str, str]]:
    return {(each.kind, each.component) for each in placed.places}


def test_what_comes_from_a_hub_goes_to_its_cache_without_a_hint(world: World) -> None:
    assert where(place_manifest(world.context, native(world))) == {("hub", "model")}


def test_hints_decide_for_the_components_that_they_name(world: World) -> None:
    hints = [
        {"kind": "descript", "component": "vocoder"},
        {"kind": "dia", "component": "vocoder"},
        {"kind": "dia", "component": "model"},
    ]
    placed = place_manifest(world.context, native(world, *hints))
    assert where(placed) == {("descript", "vocoder"), ("dia", "vocoder"), ("dia", "model")}
    cache = world.home / ".cache"
    assert (cache / "descript" / "dac" / "weights_44khz_8kbps_0.0.1.pth").read_bytes() == VOCODER[
        "checkpoint.pth"
    ]
    assert (cache / "dia" / "vocoder" / "checkpoint.pth").read_bytes() == VOCODER["checkpoint.pth"]
    assert (cache / "dia" / "model" / "config.json").read_bytes() == CONFIG
    assert [each.shown for each in placed.places if each.kind == "descript"] == [
        cache / "descript" / "dac" / "weights_44khz_8kbps_0.0.1.pth"
    ]


@pytest.mark.parametrize(
    "hint",
    [
        "hub",
        {"kind": "/etc", "component": "model"},
        {"kind": "directory", "component": "model"},
        {"kind": ["hub"], "component": "model"},
        {"kind": "dia"},
        {"kind": "dia", "component": "../x"},
        {"kind": "dia", "component": 5},
        {"kind": "new", "component": "vocoder", "path": "/etc"},
        None,
    ],
)
def test_hints_that_make_no_sense_are_passed_over(world: World, hint: Any) -> None:
    assert where(place_manifest(world.context, native(world, hint))) == {("hub", "model")}


def test_the_user_names_places(world: World, tmp_path: Path) -> None:
    manifest = native(world, {"kind": "dia", "component": "vocoder"})
    assert where(place_manifest(world.context, manifest, ["hub"])) == {("hub", "model")}
    assert where(place_manifest(world.context, manifest, ["dia"])) == {("dia", "vocoder")}
    assert where(place_manifest(world.context, manifest, ["descript"])) == {("descript", "vocoder")}
    both = place_manifest(world.context, manifest, [tmp_path / "x", "hub"])
    assert where(both) == {("directory", "model"), ("directory", "vocoder"), ("hub", "model")}
    assert (tmp_path / "x" / "vocoder" / "checkpoint.pth").read_bytes() == VOCODER["checkpoint.pth"]


def test_components_can_be_chosen(world: World, tmp_path: Path) -> None:
    manifest = native(world)
    placed = place_manifest(world.context, manifest, [tmp_path / "x"], components=["vocoder"])
    assert where(placed) == {("directory", "vocoder")}
    with pytest.raises(UsageError, match="has no component 'tokenizer'") as caught:
        place_manifest(world.context, manifest, components=["tokenizer"])
    assert "model, vocoder" in caught.value.hint


def test_a_component_that_has_no_place_there_is_an_error_that_says_why(world: World) -> None:
    manifest = native(world)
    with pytest.raises(UsageError, match="does not come from a hub"):
        place_manifest(world.context, manifest, ["hub"], components=["vocoder"])
    with pytest.raises(UsageError, match=r"0 \.pth files"):
        place_manifest(world.context, manifest, ["descript"], components=["model"])
    alone = world.keep(manifest_of(component("vocoder", VOCODER), name="lab/c"), VOCODER)
    with pytest.raises(UsageError, match="nothing of lab/c@main belongs into hub"):
        place_manifest(world.context, alone, ["hub"])


def test_nothing_says_where_is_an_error_with_the_kinds(world: World) -> None:
    manifest = world.keep(manifest_of(component("", VOCODER), name="lab/c"), VOCODER)
    with pytest.raises(UsageError, match="does not say where") as caught:
        place_manifest(world.context, manifest)
    assert "hub, descript, dia or a directory" in caught.value.hint


def test_an_unnamed_component_lies_at_the_top_of_a_directory(world: World, tmp_path: Path) -> None:
    manifest = world.keep(manifest_of(component("", MODEL), name="lab/c"), MODEL)
    placed = place_manifest(world.context, manifest, [tmp_path / "x"])
    assert (tmp_path / "x" / "config.json").read_bytes() == CONFIG
    assert [each.shown for each in placed.places] == [tmp_path / "x"]


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(world: World, tmp_path: Path) -> None:
    both = manifest_of(from_hub("model", MODEL), from_hub("vocoder", VOCODER, CODEC, CODEC_COMMIT))
    world.keep(both, MODEL, VOCODER)
    (world.home / "x" / "model").mkdir(parents=True)
    (world.home / "x" / "model" / "config.json").write_bytes(b"x" * len(CONFIG))
    (world.home / "x" / "model" / "pytorch_model.bin").write_bytes(b"x")
    before = sorted(world.home.rglob("*"))
    placed = place_manifest(world.context, both, ["hub", world.home / "x"], dry_run=True)
    assert sorted(world.home.rglob("*")) == before
    hows = {(each.where.relative_to(world.home).parts[0], each.path): each.how for each in placed.files}
    assert hows[".cache", "config.json"] == "to place"
    assert hows["x", "config.json"] == "to check"
    assert hows["x", "pytorch_model.bin"] == "in the way"
    assert hows["x", "checkpoint.pth"] == "to place"
