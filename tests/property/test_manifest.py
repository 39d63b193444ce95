"""Round trips of manifests, and the canonical form against an independent RFC 8785 writer."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from diachunk.digest import derive_id, digest_of
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build, decode, encode, write
from diachunk.manifest.strict_json import INT_MAX

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=6)
VALUES = st.recursive(
    st.one_of(TEXT, st.integers(0, INT_MAX)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)
# Two letters before each key keep clear of the known ones, "requires" included.
EXTRA = st.dictionaries(KEYS.map("x-".__add__), VALUES, max_size=2)
SEGMENTS = st.text(st.sampled_from("abcXYZ012 ._-é日"), min_size=1, max_size=6).filter(
    lambda text: text not in (".", "..")
)


def decoded_or_rule(data: bytes) -> Manifest | str:
    try:
        return decode(data)
    except ManifestError as error:
        return error.rule


@st.composite
def files(draw: st.DrawFn, path: str) -> FileEntry:
    sizes = draw(st.lists(st.integers(1, CHUNK_BYTES), max_size=4))
    chunks = [
        (size, digest_of(f"{path} {end}".encode()))
        for size, end in zip(sizes, accumulate(sizes), strict=True)
    ]
    whole = chunks[0][1] if len(chunks) == 1 else digest_of(path.encode() if chunks else b"")
    sha256 = draw(st.sampled_from(["", digest_of(path.encode()).hex()])) if chunks else ""
    git = draw(st.sampled_from(["", whole.hex()[:40]]))
    return FileEntry(path, sum(sizes), whole, ChunkList.of(chunks), sha256, draw(EXTRA), git)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(
        st.one_of(
            st.just([""]), st.lists(st.sampled_from(["model", "vocoder", "c.3"]), min_size=1, unique=True)
        )
    )
    components = []
    for name in names:
        tails = draw(st.lists(SEGMENTS, min_size=1, max_size=3))
        paths = [f"{name or 'top'}-{index}/{tail}" for index, tail in enumerate(tails)]
        entries = tuple(draw(files(path)) for path in paths)
        components.append(Component(name, entries, draw(EXTRA), draw(EXTRA)))
    return build(
        draw(st.sampled_from(["n", "org/name-1.0"])),
        draw(st.sampled_from(["main", "v1.2_x"])),
        components,
        extra=draw(EXTRA),
        origins=draw(st.sampled_from([(), ("https://example.org/a", "http://[::1]:8420")])),
        places=draw(st.lists(VALUES, max_size=2)),
    )


@given(manifests())
def test_what_is_encoded_decodes_to_the_same_manifest(manifest: Manifest) -> None:
    data = encode(manifest)
    assert decode(data) == manifest
    assert encode(decode(data)) == data


@given(manifests())
def test_the_id_is_over_the_rfc_8785_form_of_what_is_written(manifest: Manifest) -> None:
    content = json.loads(encode(manifest))["content"]
    assert b"".join(write.canonical_content(manifest)) == rfc8785.dumps(content)
    assert manifest.id == derive_id([rfc8785.dumps(content)])


@given(manifests(), st.randoms(use_true_random=False))
def test_spelling_does_not_change_the_id(manifest: Manifest, random: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = [(key, shuffled(each)) for key, each in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(each) for each in value] if isinstance(value, list) else value

    other = json.dumps(shuffled(json.loads(encode(manifest))), indent=random.choice([None, 3, "\t"]))
    assert decode(other.encode()) == manifest


@given(manifests(), st.data())
def test_a_changed_byte_gives_an_error_or_another_valid_manifest(
    manifest: Manifest, data: st.DataObject
) -> None:
    spoiled = bytearray(encode(manifest))
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    other = decoded_or_rule(bytes(spoiled))
    if isinstance(other, str):
        assert other
        return
    assert decode(encode(other)) == other
    content = json.loads(bytes(spoiled))["content"]
    assert other.id == derive_id([rfc8785.dumps(content)])


@given(st.one_of(st.binary(max_size=60), VALUES.map(lambda value: json.dumps(value).encode())))
def test_no_bytes_cause_anything_but_a_manifest_error(data: bytes) -> None:
    rule = decoded_or_rule(data)
    assert isinstance(rule, str), "no manifest is this small"
    assert rule
