"""Hostile manifests, by content (M8 to M20 of docs/manifest.md): well formed, but not to be believed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from diachunk.digest import digest_of
from diachunk.errors import ManifestError
from diachunk.limits import CHUNK_BYTES, DEFAULT, Limits
from diachunk.manifest import ChunkList, Component, FileEntry, build, decode
from manifest_files import EMPTY, HELLO, OTHER, SHA, file, put, refused, two_components, with_files

NOT_NAMES = [
    "",
    "a/b/c",
    "/a",
    "a/",
    "../a",
    "a/..",
    "a..b",
    ".a",
    "-a",
    "a b",
    "é",
    "a\n",
    "a@b",
    "a\\b",
    "a:b",
]
NOT_WORDS = ["a/b", ".", "..", ".x", "a\n", "a b", "é", "x" * 97, "a\\b", "a\u202eb", "a\ud800"]

ESCAPES = [
    "",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "a//b",
    "a/",
    "//",
    "..",
    "~/../a",
]
FOREIGN = ["a\\b", "..\\x", "C:x", "a:stream", "\\\\host\\share"]
CONTROL = ["a\0b", "a\nb", "a\x1b[2Jb", "a\x7fb", "a\x85b", "a\u2028b", "a\ud800b", "a\ue000b", "\u0378"]
INVISIBLE = ["a\u202egpj.exe", "a\u200bb", "\ufeffa", "a\u2066b", "a\u00adb", "a\U000e0001b"]
DECOMPOSED = ["e\u0301", "a/e\u0301/b", "\u212b", "\uf900"]
LONG = ["x" * 256, "a/" + "é" * 128, "é" * 128 + "/a", "a/" * 512 + "a", "/".join(["é" * 100] * 6)]

NOT_PAIRS = [
    [[]],
    [[5]],
    [[5, HELLO, 1]],
    [5],
    ["ab"],
    [None],
    [{"size": 5, "digest": HELLO}],
    [[5, HELLO], [5]],
]
NOT_SIZES = [
    [[size, HELLO]] for size in ("5", True, None, [5], HELLO, CHUNK_BYTES + 1, 2**32, 2**32 + 5, 2**52)
]
NOT_DIGESTS = [[[5, None]], [[5, [HELLO]]], [[5, 5]], [[HELLO, 5]], [[0, EMPTY], [5, HELLO]]]

NOT_WEB = [
    "",
    "example.org",
    "file:///etc/passwd",
    "FILE:///x",
    "ftp://a",
    "httpx://a",
    "javascript:1",
    "//a",
    "/a",
]
NO_HOST = [
    "http://",
    "http:///etc",
    "http://?q",
    "https://#f",
    " http://a",
    "http://a b",
    "http://a\nHost: b",
]
CREDENTIALS = [
    "http://user:secret@example.org/",
    "https://token@example.org",
    "http://good.org\\@evil.org",
    "http://a\\b",
]
NOT_ASCII = [
    "http://a\r\n",
    "http://a\t",
    "http://a\0",
    "http://пример.org",
    "http://a/\u202e",
    "http://a\ud800",
]


@pytest.mark.parametrize(
    ("where", "value"),
    [
        *(("content.name", name) for name in [*NOT_NAMES, "x" * 97, "a\u202eb", "a\ud800"]),
        *(("content.revision", revision) for revision in ["", *NOT_WORDS]),
        *(("content.chunking", rule) for rule in ("", "/x", "a b", "a\n", "x" * 97, "a/../b")),
        *(("component.name", name) for name in NOT_WORDS),
    ],
)
def test_names_follow_their_grammar(where: str, value: str) -> None:
    refused(put(where, value), "M8")


@pytest.mark.parametrize(
    "data",
    [
        put("content.components", []),
        put("component.files", []),
        two_components("model", "model"),
        two_components("model", "MODEL"),
        two_components("", "model"),
        two_components("model", ""),
        two_components("", ""),
    ],
)
def test_components_have_files_and_distinct_names(data: bytes) -> None:
    refused(data, "M9")


@pytest.mark.parametrize("path", [*ESCAPES, *FOREIGN, *CONTROL, *INVISIBLE, *DECOMPOSED, *LONG])
def test_paths_stay_inside_their_component(path: str) -> None:
    refused(put("file.path", path), "M10")


@pytest.mark.parametrize(
    "path", ["a b/c-d_e.bin", "é/日本語.bin", "x" * 255, "..a", "a...", ".gitattributes", "a@b"]
)
def test_ordinary_paths_are_accepted(path: str) -> None:
    assert decode(put("file.path", path)).components[0].files[0].path == path


@pytest.mark.parametrize(
    "paths",
    [
        ("a", "a"),
        ("a", "A"),
        ("straße", "STRASSE"),
        ("É", "é"),
        ("ſ", "s"),
        ("a", "a/b"),
        ("a/b", "A"),
        ("a", "a.b", "a-b", "a b", "a/b"),
        ("x/a/b/c", "y", "X/A"),
    ],
)
def test_no_two_files_have_one_place(paths: tuple[str, ...]) -> None:
    refused(with_files(*(file(path) for path in paths)), "M11")


def test_paths_that_only_look_alike_are_accepted() -> None:
    paths = ["a", "a.b", "a-b/c", "ab/c", "a b", "b/a", "b/ab"]
    assert len(decode(with_files(*(file(path) for path in paths))).components[0].files) == len(paths)


def test_many_deep_paths_are_compared_in_a_moment() -> None:
    data = with_files(*(file(f"{'a/' * 500}{index}") for index in range(10_000)))
    started = time.monotonic()
    decode(data)
    assert time.monotonic() - started < 5


def test_files_chunks_and_values_are_counted_before_use() -> None:
    files = [file("a"), file("b"), file("c")]
    assert decode(with_files(*files), Limits(manifest_files_max=3, manifest_chunks_max=3))
    assert "3 files" in refused(with_files(*files), "M12", Limits(manifest_files_max=2))
    assert "3 chunks" in refused(with_files(*files), "M12", Limits(manifest_chunks_max=2))
    for piece in (b"[],", b"{},", b'"",'):
        assert "values" in refused(b'{"x":[' + piece * 2_000_000 + b"0]}", "M12")


@pytest.mark.parametrize(
    "digest",
    ["", *(each * 64 for each in "AgG０\ud800 "), "0" * 63, "0" * 65, "0" * 62 + "\n0", " " + "0" * 63],
)
@pytest.mark.parametrize("where", ["file.blake3", "file.sha256", "chunk"])
def test_digests_are_64_lower_case_hex_digits(digest: str, where: str) -> None:
    refused(put("file.chunks", [[5, digest]]) if where == "chunk" else put(where, digest), "M13")


def test_digests_cannot_lend_each_other_digits() -> None:
    refused(put("file.chunks", [[2, "0" * 63], [3, "0" * 65]]), "M13")


@pytest.mark.parametrize("chunks", [*NOT_PAIRS, *NOT_SIZES, *NOT_DIGESTS])
def test_a_chunk_is_a_size_up_to_4_mib_and_a_digest(chunks: list[Any]) -> None:
    refused(put("file.chunks", chunks), "M14")


@pytest.mark.parametrize("size", [4, 6, 2**53 - 1])
def test_sizes_of_chunks_sum_to_the_size_of_the_file(size: int) -> None:
    refused(put("file.size", size), "M15")
    refused(put("file.chunks", []), "M15")


def test_an_empty_file_has_no_chunks_and_the_digest_of_nothing() -> None:
    assert decode(with_files(file("a", 0, EMPTY)))
    refused(with_files(file("a", 0, HELLO)), "M16")
    refused(put("file.size", 0), "M16")
    refused(with_files({**file("a", 0, EMPTY), "chunks": [[5, HELLO]]}), "M16")


@pytest.mark.parametrize(
    "second",
    [file("b", 6), {**file("b"), "chunks": [[2, OTHER], [3, SHA]]}, {**file("b"), "sha256": SHA}],
    ids=["size", "chunks", "sha256"],
)
def test_one_file_digest_has_one_description(second: dict[str, Any]) -> None:
    refused(with_files(file("a"), second), "M17")
    refused(with_files(second, file("a")), "M17")


def test_a_file_of_one_chunk_has_the_digest_of_that_chunk() -> None:
    refused(put("file.chunks", [[5, OTHER]]), "M17")


@pytest.mark.parametrize(
    "files",
    [
        [{**file(size=10), "chunks": [[4, OTHER], [6, OTHER]]}],
        [{**file(size=10), "chunks": [[4, HELLO], [6, OTHER]]}],
        [
            {**file("a", 10, SHA), "chunks": [[4, OTHER], [6, "1" * 64]]},
            {**file("b", 10, HELLO), "chunks": [[5, OTHER], [5, "2" * 64]]},
        ],
        [{**file("a", 10, SHA), "chunks": [[5, OTHER], [5, "1" * 64]]}, file("b", 6, OTHER)],
    ],
    ids=["chunk twice in a file", "chunk and its file", "chunk in two files", "file and an earlier chunk"],
)
def test_one_digest_has_one_size(files: list[dict[str, Any]]) -> None:
    refused(with_files(*files), "M18")


@pytest.mark.parametrize(
    "origin", [*NOT_WEB, *NO_HOST, *CREDENTIALS, *NOT_ASCII, "https://" + "a" * 2041], ids=ascii
)
def test_origins_are_web_addresses_without_credentials(origin: str) -> None:
    assert "secret" not in refused(put("hints.origins", ["https://example.org/", origin]), "M19")


def test_origins_are_few_and_short() -> None:
    origins = [f"https://example.org/{index}" for index in range(DEFAULT.origins_max + 1)]
    assert len(decode(put("hints.origins", origins[1:])).origins) == DEFAULT.origins_max
    refused(put("hints.origins", origins), "M19")
    assert decode(put("hints.origins", ["https://" + "a" * 2040])).origins


def test_a_manifest_asked_for_by_id_has_that_id() -> None:
    data = put("content.name", "n")
    manifest = decode(data)
    assert decode(data, expected=manifest.id) == manifest
    for other in (put("content.name", "m"), put("file.note", "x"), put("component.upstream", {"repo": "x"})):
        with pytest.raises(ManifestError) as caught:
            decode(other, expected=manifest.id)
        assert (caught.value.rule, caught.value.exit_code) == ("M20", 3)


HELLO_FILE = FileEntry("a", 5, digest_of(b"hello"), ChunkList.of([(5, digest_of(b"hello"))]))
GOOD = [Component("c", (HELLO_FILE,))]


@pytest.mark.parametrize(
    ("rule", "publish"),
    [
        ("M2", lambda: build("n", "main", GOOD, extra={"name": "other"})),
        ("M3", lambda: build("n", "main", GOOD, extra={"x": (1, 2)})),
        ("M3", lambda: build("n", "main", GOOD, places=[{"x": 0.5}])),
        ("M4", lambda: build("n", "main", [Component("c", (HELLO_FILE,), extra={"é": 1})])),
        ("M7", lambda: build("n", "main", GOOD, extra={"requires": ["x"]})),
        ("M8", lambda: build("n", "a/b", GOOD)),
        ("M9", lambda: build("n", "main", [])),
        ("M11", lambda: build("n", "main", [Component("c", (HELLO_FILE, HELLO_FILE))])),
        ("M13", lambda: build("n", "main", [Component("c", (FileEntry("a", 0, b"", ChunkList.of([])),))])),
        ("M19", lambda: build("n", "main", GOOD, origins=["file:///x"])),
    ],
)
def test_publishing_is_held_to_the_same_rules(rule: str, publish: Callable[[], object]) -> None:
    with pytest.raises(ManifestError) as caught:
        publish()
    assert caught.value.rule == rule
