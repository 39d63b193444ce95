"""Parts of a recipe: what they are called, and what a manifest of the whole says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diachunk.digest import digest_of
from diachunk.errors import ManifestError
from diachunk.manifest import Component, FileEntry, Manifest, build
from diachunk.manifest.names import is_component, is_revision
from diachunk.manifest.parts import part_named, part_of, part_of_manifest, part_revision, whole_of
from diachunk.manifest.recipe import HubUpstream, Recipe, RecipeComponent
from store_files import chunk_list

WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", fullmatch=True).filter(is_revision)


def recipe_of(*names: str, revision: str = "main") -> Recipe:
    parts = tuple(RecipeComponent(each, HubUpstream(f"lab/{number}")) for number, each in enumerate(names))
    return Recipe("lab/dia", revision, parts)


DIA = recipe_of("model", "vocoder", "voices")


def test_a_part_says_in_its_revision_which_it_is() -> None:
    part = part_of(DIA, ["voices", "model"])
    assert part.ref == "lab/dia@main.model.voices"
    assert [each.name for each in part.components] == ["model", "voices"]
    assert part.whole == DIA


def test_all_components_are_no_part() -> None:
    assert part_of(DIA, ["voices", "model", "vocoder"]) is DIA


def test_a_part_of_a_part_is_a_part_of_the_whole() -> None:
    assert part_of(part_of(DIA, ["model", "voices"]), ["model"]) == part_of(DIA, ["model"])


def test_a_part_is_found_by_its_revision() -> None:
    part = part_of(DIA, ["model", "voices"])
    assert part_named(DIA, part.revision) == part
    for revision in ("main", "main.", "main.voices.model", "main.model.vocoder.voices", "main.x", "v1.model"):
        assert part_named(DIA, revision) is None


def test_names_that_could_be_read_in_two_ways_are_not_spelled() -> None:
    recipe = recipe_of("a", "b", "a.b", "c")
    revisions = {part_of(recipe, names).revision for names in (["a", "b"], ["a.b"], ["a"], ["b"])}
    assert len(revisions) == 4
    assert {"main.a", "main.b", "main.a.b"} < revisions
    (other,) = revisions - {"main.a", "main.b", "main.a.b"}
    assert other.startswith("main.part-")


@given(WORDS, st.lists(WORDS.filter(is_component), min_size=1, max_size=40, unique=True))
def test_every_part_has_a_revision_that_a_manifest_takes(revision: str, names: list[str]) -> None:
    found = part_revision(revision, names)
    assert is_revision(found)
    assert found != revision
    assert found != part_revision(revision, [*names, "x"])


@given(
    WORDS,
    st.lists(
        st.sampled_from(["a", "b", "a.b", "b.a", "c-d", "A1", "part-0"]), min_size=2, max_size=7, unique=True
    ),
    st.data(),
)
def test_different_parts_have_different_revisions_and_are_found_by_what_is_spelled(
    revision: str, names: list[str], data: st.DataObject
) -> None:
    recipe = recipe_of(*names, revision=revision)
    chosen = st.sets(st.sampled_from(names), min_size=1)
    one, two = part_of(recipe, data.draw(chosen)), part_of(recipe, data.draw(chosen))
    assert (one.revision == two.revision) == (one.components == two.components)
    if one.whole is not None:
        spelled = one.revision == ".".join((revision, *(each.name for each in one.components)))
        assert part_named(recipe, one.revision) == (one if spelled else None)


def test_what_it_is_a_part_of_is_read_from_its_revision_and_its_components() -> None:
    assert whole_of("main.vocoder", ["vocoder"]) == "main"
    assert whole_of("v1.2.a.b", ["a", "b"]) == "v1.2"
    assert whole_of(part_revision("main", ["a.b"]), ["a.b"]) == "main"
    for revision, names in (
        ("main", ["vocoder"]),
        ("main", [""]),
        ("main.vocoder", ["model"]),
        (".vocoder", ["vocoder"]),
        ("vocoder", ["vocoder"]),
        ("main.part-0123456789abcdef", ["vocoder"]),
    ):
        assert whole_of(revision, names) == ""


def component_of(name: str) -> Component:
    data = name.encode()
    return Component(name, (FileEntry("weights.bin", len(data), digest_of(data), chunk_list([data])),))


def whole_manifest() -> Manifest:
    parts = [component_of(each.name) for each in DIA.components]
    places = tuple({"kind": "hub", "component": each.name} for each in DIA.components)
    mirrors = [{"component": each.name, "origin": "https://m.test"} for each in DIA.components]
    made = build("lab/dia", "main", parts, origins=["https://o.test"], places=places)
    return replace(made, hints_extra={"mirrors": mirrors, "access": "credential"})


def test_a_part_of_a_manifest_has_the_components_and_their_hints_alone() -> None:
    whole = whole_manifest()
    cut = part_of_manifest(whole, part_of(DIA, ["vocoder"]))
    assert cut.ref == "lab/dia@main.vocoder"
    assert cut.components == (whole.components[1],)
    assert cut.id == build("lab/dia", "main.vocoder", whole.components[1:2]).id
    assert cut.origins == ()
    assert cut.places == ({"kind": "hub", "component": "vocoder"},)
    assert cut.hints_extra == {
        "mirrors": [{"component": "vocoder", "origin": "https://m.test"}],
        "access": "credential",
    }


@pytest.mark.parametrize("mirrors", ["no list", [], [None, "x", {"component": ["vocoder"]}]])
def test_hints_of_strangers_are_no_trouble(mirrors: object) -> None:
    strange = replace(whole_manifest(), places=(None, 7), hints_extra={"mirrors": mirrors})
    cut = part_of_manifest(strange, part_of(DIA, ["vocoder"]))
    assert (cut.places, cut.hints_extra) == ((), {})


def test_a_manifest_without_these_components_has_no_such_part() -> None:
    other = build("lab/dia", "main", whole_manifest().components[:1])
    with pytest.raises(ManifestError):
        part_of_manifest(other, part_of(DIA, ["vocoder"]))
