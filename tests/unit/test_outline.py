"""Outlines: what is read of a stored manifest without its chunk lists, and what is decoded after all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diachunk.manifest.outline as module
from diachunk.digest import digest_of
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, DEFAULT, Limits
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build, decode, encode, write
from diachunk.manifest.outline import Outline, outline

GOLDEN = Path(__file__).parent.parent / "golden" / "small_manifest.json"
DIGESTS = tuple(digest_of(bytes([value])) for value in range(8))


def entry(path: str, *sizes: int, first: int = 0) -> FileEntry:
    """A file whose chunks have digests of their own, from number `first` on."""
    chunks = ChunkList.of(zip(sizes, DIGESTS[first:], strict=False))
    whole = {0: digest_of(b""), 1: DIGESTS[first]}.get(len(sizes), digest_of(path.encode()))
    return FileEntry(path, sum(sizes), whole, chunks)


def made_of(*files: FileEntry, **more: Any) -> Manifest:
    return build("lab/a", "v1", [Component("model", files)], **more)


PLAIN = made_of(entry("a.bin", CHUNK_BYTES, 7), entry("empty"), entry("b.bin", 5, first=3))
TEXT = encode(PLAIN)


def facts(known: Manifest | Outline) -> object:
    """What an outline says, of either."""
    components = [
        (each.name, [(file.path, file.size, file.blake3) for file in each.files]) for each in known.components
    ]
    return known.id, known.name, known.revision, known.total_bytes, components


def skimmed(found: Outline) -> bool:
    """Whether it was read without its chunk lists."""
    return any(isinstance(file.lines, memoryview) for file in found.files())


def replaced(old: str, new: str, data: bytes = TEXT) -> bytes:
    assert old.encode() in data, old
    return data.replace(old.encode(), new.encode(), 1)


def line(size: int, digest: bytes) -> str:
    return f'              [{size}, "{digest.hex()}"]'


@pytest.mark.parametrize("data", [TEXT, GOLDEN.read_bytes()])
def test_what_encode_wrote_is_read_without_its_chunk_lists(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = decode(data)
    monkeypatch.setattr(module, "decode", lambda *_, **__: pytest.fail("decoded"))
    found = outline(data, manifest.id)
    assert facts(found) == facts(manifest)
    assert skimmed(found)
    assert [file.chunks() for file in found.files()] == [file.chunks for _, file in manifest.walk()]
    digests = [[digest for _, digest in file.chunks] for _, file in manifest.walk()]
    assert [list(file.digests()) for file in found.files()] == digests


def test_a_manifest_in_memory_has_an_outline_too() -> None:
    found = Outline.of(PLAIN)
    assert facts(found) == facts(PLAIN)
    assert [file.chunks() for file in found.files()] == [file.chunks for _, file in PLAIN.walk()]
    assert [len(list(file.digests())) for file in found.files()] == [2, 0, 1]


@pytest.mark.parametrize(
    "spell",
    [
        lambda data: write.compact(decode(data)),
        lambda data: json.dumps(json.loads(data), indent=4).encode(),
        lambda data: json.dumps(json.loads(data)).encode(),
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: replaced("\n            ]", "\n              ]", data),
        lambda data: replaced(line(7, DIGESTS[1]), f'[7, "{DIGESTS[1].hex()}"]', data),
        lambda data: replaced(line(7, DIGESTS[1]), line(7, DIGESTS[1]) + "\n", data),
    ],
)
def test_another_spelling_is_decoded(spell: Callable[[bytes], bytes]) -> None:
    found = outline(spell(TEXT), PLAIN.id)
    assert facts(found) == facts(PLAIN)
    assert not skimmed(found)
    assert [file.chunks() for file in found.files()] == [file.chunks for _, file in PLAIN.walk()]


def test_what_is_decoded_must_have_the_id_of_its_file_name() -> None:
    other = digest_of(b"another")
    assert outline(TEXT, other).id == other, "a claim, which nothing here proves"
    with pytest.raises(ManifestError) as caught:
        outline(write.compact(PLAIN), other)
    assert caught.value.rule == "M20"


def test_a_list_in_hints_that_looks_like_chunks_is_none_of_a_file() -> None:
    """Pretty-printed hints can have the very layout of a file's list, lines and all."""
    places = [{"a": {"b": {"chunks": [5, "x"]}}}]
    manifest = made_of(entry("a.bin", 9, 7), places=places)
    data = encode(manifest)
    assert data.count(b'\n            "chunks": [\n') == 2
    assert facts(outline(data, manifest.id)) == facts(manifest)
    only = made_of(entry("empty"), places=places)
    assert facts(outline(encode(only), only.id)) == facts(only)


def test_strings_cannot_look_like_chunk_lines() -> None:
    tricky = '\n            "chunks": [\n' + line(5, DIGESTS[0]) + "\n            ]"
    file = entry("a.bin", 9, 7)
    extra = {"x": tricky, "y": ["NaN", {"chunks": tricky}]}
    file = FileEntry(file.path, file.size, file.blake3, file.chunks, "", extra)
    manifest = made_of(file, extra=extra, places=[tricky])
    found = outline(encode(manifest), manifest.id)
    assert facts(found) == facts(manifest)
    assert skimmed(found)


LISTS = f"[\n{line(CHUNK_BYTES, DIGESTS[0])},\n{line(7, DIGESTS[1])}\n            ]"
HELLO = f"[\n{line(5, DIGESTS[3])}\n            ]"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # the structure around the lists
        ("\n            ]\n          },", "\n          },"),
        ('            "chunks": [\n', '            "chunks": [\n            "chunks": [\n'),
        (LISTS, f"{LISTS}]"),
        (LISTS, "NaN"),
        (LISTS, "1.5"),
        (LISTS, "[0]"),
        (LISTS, "[[]]"),
        ('"chunks": []', '"chunks": NaN'),
        ('"chunks": []', '"chunks": {}'),
        ('"chunks": []', f'"chunks": {HELLO}'),
        (HELLO, "[]"),
        ('            "chunks": [\n', '            "chunks": [],\n            "chunks": [\n'),
        ('            "chunks": [\n', '            "other": [\n'),
        ('"revision"', f'"x": [{{\n            "chunks": {LISTS}}}], "revision": 1.5, "y"'),
        ('"name": "lab/a"', '"name": "lab/a", "x": NaN'),
        ('"name": "lab/a"', '"name": "lab/a", "x": [[1.5]]'),
        ('"diachunk": 1', '"diachunk": 1, "x": Infinity'),
        # the rules of docs/manifest.md, where the outline speaks
        ('"diachunk": 1', '"diachunk": 2'),
        ('"name": "lab/a"', '"name": "lab/a", "requires": ["more"]'),
        ('"name": "lab/a"', '"name": "../a"'),
        ('"name": "lab/a"', '"name": 5'),
        ('"name": "lab/a"', '"name": "lab/a", "name": "lab/a"'),
        ('"name": "lab/a"', '"name": "lab/a", "x": true'),
        ('"name": "lab/a"', '"name": "lab/a", "x": "\\ud800"'),
        ('"name": "lab/a"', '"name": "lab/a", "x": ' + "[" * 100_000 + "]" * 100_000),
        ('"name": "model"', '"name": "model", "upstream": {}'),
        ('"components": [', '"components": {}, "x": ['),
        ('"files": [', '"files": "no", "x": ['),
        ('"files": [', '"x": ['),
        ('"content": {', '"x": {'),
        ('"path": "a.bin"', '"x": "a.bin"'),
        ('"a.bin"', '"../a.bin"'),
        ('"a.bin"', '"B.bin"'),
        ('"a.bin"', '"b.bin/c"'),
        ('"a.bin"', "null"),
        ('"a.bin"', '"a\\nb"'),
        ('"size": 4194311', '"size": true'),
        ('"size": 4194311', '"size": "4194311"'),
        ('"size": 4194311', '"size": 4194311.0'),
        ('"size": 4194311', '"size": 1'),
        ('"size": 4194311', '"size": 8388609'),
        ('"size": 0', '"size": 1'),
        ('"size": 0', '"size": false'),
        ('"size": 5', '"size": 5, "sha256": ""'),
        ('"size": 5', f'"size": 5, "sha256": "{"A" * 64}"'),
        (f'"blake3": "{DIGESTS[3].hex()}"', f'"blake3": "{DIGESTS[3].hex().upper()}"'),
        (f'"blake3": "{DIGESTS[3].hex()}"', f'"blake3": "{DIGESTS[4].hex()}"'),
        (f'"blake3": "{digest_of(b"").hex()}"', f'"blake3": "{DIGESTS[4].hex()}"'),
        # what shows of a list without reading it
        (line(5, DIGESTS[3]), line(5, DIGESTS[4])),
        (line(5, DIGESTS[3]), line(5, DIGESTS[3])[:-9] + '"]'),
        (line(5, DIGESTS[3]), f'{line(5, DIGESTS[3])}, "x": {line(5, DIGESTS[3])}'),
        (line(5, DIGESTS[3]), f"{line(1, DIGESTS[3])},\n" * 5 + line(1, DIGESTS[3])),
        ('"],\n', '"]],"":[\n'),
        (f"{line(CHUNK_BYTES, DIGESTS[0])},\n", ""),
    ],
)
def test_what_decode_refuses_is_refused(old: str, new: str) -> None:
    data = replaced(old, new)
    with pytest.raises(ManifestError) as expected:
        decode(data)
    with pytest.raises(ManifestError) as caught:
        outline(data, PLAIN.id)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("change", ["size", "sha256", "chunks"])
def test_two_files_of_one_digest_agree_or_are_refused(change: str) -> None:
    def text(second: str) -> bytes:
        twice = made_of(entry("a.bin", 5, 7, first=3), entry("b.bin", 9, 7))
        return encode(twice).replace(digest_of(b"b.bin").hex().encode(), second.encode())

    digest = digest_of(b"a.bin").hex()
    agreeing = replaced('"size": 16', '"size": 12', text(digest)).replace(
        f"{line(9, DIGESTS[0])},\n{line(7, DIGESTS[1])}".encode(),
        f"{line(5, DIGESTS[3])},\n{line(7, DIGESTS[4])}".encode(),
    )
    good = outline(agreeing, decode(agreeing).id)
    assert skimmed(good)
    assert facts(good) == facts(decode(agreeing))
    data = {
        "size": text(digest),
        "sha256": replaced('"size": 12', f'"size": 12, "sha256": "{"a" * 64}"', agreeing),
        "chunks": replaced(f"{line(5, DIGESTS[3])}", f"{line(5, DIGESTS[5])}", agreeing),
    }[change]
    with pytest.raises(ManifestError) as caught:
        outline(data, PLAIN.id)
    assert caught.value.rule == "M17"


def test_damage_inside_a_list_is_overlooked_until_the_list_is_read() -> None:
    """What the docstring of Outline says: nobody has looked into the lists."""
    other = replaced(DIGESTS[1].hex(), DIGESTS[6].hex())
    found = outline(other, PLAIN.id)
    assert facts(found) == facts(PLAIN)
    assert DIGESTS[6] in list(found.components[0].files[0].digests())
    most = DIGESTS[1].hex()[:-2]
    for text in ("g" * 64, most, f"{most}  ", f"{most}]]", f'{most}"]', f'{most}é"'):
        broken = outline(replaced(DIGESTS[1].hex(), text), PLAIN.id)
        assert facts(broken) == facts(PLAIN)
        file = broken.components[0].files[0]
        for read in (file.chunks, file.digests):
            with pytest.raises(ManifestError):
                read()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[7, ", "[07,"),
        ("[7, ", "[7 ,"),
        ("[7, ", "[+7,"),
        ("[7, ", "[-7,"),
        ("[7, ", "[8, "),
        ("[7, ", "[], "),
        ("[7, ", "[99999999999999, "),
        ("[4194304, ", "[4194305, "),
        ("[4194304, ", "[41_9304, "),
        ("[4194304, ", "[4194311, "),
        (DIGESTS[1].hex(), DIGESTS[1].hex().upper()),
        (DIGESTS[1].hex(), DIGESTS[1].hex()[:-2] + "  "),
        (DIGESTS[1].hex(), DIGESTS[1].hex()[:-2] + "é"),
        (DIGESTS[1].hex(), DIGESTS[1].hex()[:-2] + '",'),
        ('"],\n', '"] ,\n'),
        ('"],\n', '"],,'),
    ],
)
def test_chunks_come_only_from_lines_exactly_as_they_are_written(old: str, new: str) -> None:
    before, begin, lines = TEXT.partition(b'"chunks": [\n')
    with pytest.raises(ManifestError):
        outline(before + begin + replaced(old, new, lines), PLAIN.id).components[0].files[0].chunks()


def test_sizes_that_sum_to_the_size_are_still_held_to_the_largest() -> None:
    """One chunk of 4 MiB and a byte, one of 6 bytes."""
    data = replaced(line(7, DIGESTS[1]), line(6, DIGESTS[1]), replaced("[4194304, ", "[4194305, "))
    found = outline(data, PLAIN.id)
    assert skimmed(found)
    with pytest.raises(ManifestError):
        found.components[0].files[0].chunks()
    zero = replaced("[7, ", "[0, ", replaced('"size": 4194311', '"size": 4194304'))
    with pytest.raises(ManifestError):
        outline(zero, PLAIN.id).components[0].files[0].chunks()


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (Limits(manifest_bytes_max=len(TEXT) - 1), "M1"),
        (Limits(manifest_files_max=2), "M12"),
        (Limits(manifest_chunks_max=2), "M12"),
        (Limits(path_bytes_max=4), "M10"),
    ],
)
def test_the_caps_are_those_of_decode(limits: Limits, rule: str) -> None:
    assert facts(outline(TEXT, PLAIN.id, DEFAULT)) == facts(PLAIN)
    with pytest.raises(ManifestError) as caught:
        outline(TEXT, PLAIN.id, limits)
    assert caught.value.rule == rule
