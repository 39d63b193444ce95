"""Whatever the bytes are, a recipe is refused in words or says the same after being written down again."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from diachunk.api.recipes import recipe_key
from diachunk.errors import ManifestError
from diachunk.limits import DEFAULT
from diachunk.manifest.names import is_component, is_name, is_revision
from diachunk.manifest.paths import path_fault
from diachunk.manifest.recipe import (
    HubUpstream,
    Recipe,
    RecipeComponent,
    UrlUpstream,
    parse_recipe,
)
from diachunk.project import PLACE_KINDS

quick = settings(deadline=None, max_examples=60)

NAMES = st.from_regex(r"[a-z][a-z0-9._-]{0,8}(/[a-z0-9]{1,5})?", fullmatch=True).filter(is_name)
PARTS = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,8}", fullmatch=True)
PATHS = st.from_regex(r"[a-z]{1,6}(/[a-z0-9.]{0,3}[a-z0-9]){0,2}", fullmatch=True)
HEX = "0123456789abcdef"
SHA256 = st.text(HEX, min_size=64, max_size=64)
REVISIONS = st.one_of(st.just("main"), st.text(HEX, min_size=40, max_size=40), st.just("refs/pr/1"))
STRINGS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), max_size=3)
COMMON = {
    "mirrors": st.lists(st.sampled_from(["https://m.test/a", "http://n.test/{path}"]), max_size=2),
    "places": st.lists(st.sampled_from(PLACE_KINDS), max_size=2),
}
HUBS = st.fixed_dictionaries(
    {"hub": st.just("org/repo"), "revision": REVISIONS, "files": STRINGS, "exclude": STRINGS, **COMMON}
)
FILES = st.lists(
    st.fixed_dictionaries({"path": PATHS, "size": st.integers(0, 2**53 - 1), "sha256": SHA256}),
    min_size=1,
    max_size=3,
    unique_by=lambda row: str(row["path"]).lower(),
)
URLS = st.fixed_dictionaries({"url": st.just("https://h.test/{path}"), "file": FILES, **COMMON})
COMPONENTS = st.lists(
    st.tuples(PARTS, st.one_of(HUBS, URLS)), min_size=1, max_size=3, unique_by=lambda each: each[0].lower()
)


def toml_of(value: Any) -> str:
    """JSON's strings, numbers and arrays are TOML's; its objects are inline tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml_of(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def written(recipe: Recipe) -> bytes:
    rows = [_row(each) for each in recipe.components]
    fields = {"name": recipe.name, "revision": recipe.revision, "component": rows}
    return "".join(f"{key} = {toml_of(value)}\n" for key, value in fields.items()).encode()


def _row(component: RecipeComponent) -> dict[str, Any]:
    row: dict[str, Any] = {"name": component.name} if component.name else {}
    row |= {"mirrors": list(component.mirrors), "places": list(component.places)}
    upstream = component.upstream
    if isinstance(upstream, HubUpstream):
        return row | {
            "hub": upstream.repository,
            "revision": upstream.revision,
            "files": list(upstream.files),
            "exclude": list(upstream.exclude),
        }
    files = [{"path": each.path, "size": each.size, "sha256": each.sha256} for each in upstream.files]
    return row | (
        {"url": upstream.url, "file": files}
        if "{path}" in upstream.url
        else {"url": upstream.url, **files[0]}
    )


def keeps_its_rules(recipe: Recipe) -> None:
    assert is_name(recipe.name)
    assert is_revision(recipe.revision)
    assert recipe.components
    for component in recipe.components:
        assert is_component(component.name)
        assert set(component.places) <= set(PLACE_KINDS)
        if isinstance(component.upstream, UrlUpstream):
            assert component.upstream.files
            for file in component.upstream.files:
                assert not path_fault(file.path, DEFAULT)
                assert 0 <= file.size < 2**53
                assert len(file.sha256) == 64
    assert parse_recipe(written(recipe)) == recipe


def judged(data: bytes) -> Recipe | None:
    started_s = time.thread_time()
    recipe, error = _parsed(data)
    assert time.thread_time() - started_s < 2
    assert error is None or (error.exit_code == 3 and len(error.message) < 3_000)
    return recipe


def _parsed(data: bytes) -> tuple[Recipe | None, ManifestError | None]:
    try:
        return parse_recipe(data), None
    except ManifestError as error:
        return None, error


@quick
@given(NAMES, REVISIONS, COMPONENTS)
def test_a_good_recipe_is_read_and_says_the_same_again(
    name: str, revision: str, components: list[tuple[str, dict[str, Any]]]
) -> None:
    rows = [{"name": part, **fields} for part, fields in components]
    text = f"name = {toml_of(name)}\ncomponent = {toml_of(rows)}\n"
    if is_revision(revision):
        text += f"revision = {toml_of(revision)}\n"
    recipe = parse_recipe(text.encode())
    keeps_its_rules(recipe)
    assert recipe_key(recipe) == recipe_key(parse_recipe(written(recipe)))
    assert recipe.pinned == all(len(row.get("revision", "x" * 40)) == 40 for row in rows)


@quick
@given(st.binary(max_size=300))
def test_any_bytes_are_a_recipe_or_refused(data: bytes) -> None:
    recipe = judged(data)
    assert recipe is None or recipe.components


KEYS = [
    "name",
    "revision",
    "component",
    "hub",
    "url",
    "path",
    "size",
    "sha256",
    "file",
    "files",
    "mirrors",
    "places",
]
VALUES = st.recursive(
    st.one_of(
        st.text(max_size=20),
        st.integers(-(2**70), 2**70),
        st.booleans(),
        st.sampled_from(["main", "org/repo"]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@quick
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_table_of_known_keys_is_a_recipe_or_refused(table: dict[str, Any]) -> None:
    text = "".join(f"{key} = {toml_of(value)}\n" for key, value in table.items())
    recipe = judged(text.encode("utf-8", "replace"))
    if recipe is not None:
        keeps_its_rules(recipe)


@quick
@given(NAMES, COMPONENTS, st.integers(0), st.binary(min_size=1, max_size=6))
def test_a_good_recipe_that_was_tampered_with_is_a_recipe_or_refused(
    name: str, components: list[tuple[str, dict[str, Any]]], at: int, piece: bytes
) -> None:
    rows = [{"name": part, **fields} for part, fields in components]
    data = f"name = {toml_of(name)}\ncomponent = {toml_of(rows)}\n".encode()
    at %= len(data)
    recipe = judged(data[:at] + piece + data[at + len(piece) :])
    if recipe is not None:
        keeps_its_rules(recipe)
