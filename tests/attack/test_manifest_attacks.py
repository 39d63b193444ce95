"""Hostile manifests, by form (M1 to M7 of docs/manifest.md): what is not strict JSON of the right shape."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from diachunk.errors import ManifestError
from diachunk.limits import DEFAULT, Limits
from diachunk.manifest import decode, strict_json
from manifest_files import HELLO, document, put, raw, refused, without

REQUIRED = [
    *("document.diachunk", "document.content", "content.name", "content.revision", "content.chunking"),
    *("content.components", "component.name", "component.files"),
    *("file.path", "file.size", "file.blake3", "file.chunks"),
]


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_the_manifest_that_the_attacks_change_is_good() -> None:
    assert decode(json.dumps(document()).encode()).ref == "n@main"
    assert decode(raw('"x": [0]')).extra == {"x": [0]}
    assert decode(put("hints.origins", ["https://example.org:8420/a?b=c"])).origins


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        json.dumps(document()).encode()[:-1],
        json.dumps(document()).encode() + b"x",
        json.dumps(document()).encode() + b"{}",
        b"[]",
        b'"diachunk"',
        b"1",
        b"null",
        b"\xef\xbb\xbf" + json.dumps(document()).encode(),
        json.dumps(document()).encode("utf-16"),
        raw('"x": "?"').replace(b"?", b"\xff"),
        raw('"x": "?"').replace(b"?", b"\xed\xa0\x80"),
        raw('"x": "a\nb"'),
        b"<html>rate limited</html>",
    ],
)
def test_only_one_json_object_in_utf8_is_read(data: bytes) -> None:
    refused(data, "M1")


def test_a_manifest_over_the_cap_is_refused_unread() -> None:
    started = time.monotonic()
    assert "256 MiB" in refused(bytes(DEFAULT.manifest_bytes_max + 1), "M1")
    assert time.monotonic() - started < 2
    good = json.dumps(document()).encode()
    decode(good, Limits(manifest_bytes_max=len(good)))
    refused(good, "M1", Limits(manifest_bytes_max=len(good) - 1))


@pytest.mark.parametrize("member", ['"name": "n"', '"x": 1, "x": 1', '"x": {"a": 1, "b": 2, "a": 1}'])
def test_a_key_stands_once(member: str) -> None:
    refused(raw(member), "M2")


@pytest.mark.parametrize(
    "value",
    [
        *["1.0", "1e3", "-0.0", "NaN", "Infinity", "-Infinity", "true", "false", "null", "-1"],
        str(2**53),
        "1" * 18,
        "[true]",
        '{"a": null}',
    ],
)
@pytest.mark.parametrize(
    "place", ["content", "component", "file", "upstream", "hints", "places", "signatures", "top"]
)
def test_values_are_strings_integers_lists_and_objects(value: str, place: str) -> None:
    data = {
        "content": put("content.x", "MARK"),
        "component": put("component.x", "MARK"),
        "file": put("file.x", "MARK"),
        "upstream": put("component.upstream", {"x": "MARK"}),
        "hints": put("hints.x", "MARK"),
        "places": put("hints.places", ["MARK"]),
        "signatures": put("document.signatures", ["MARK"]),
        "top": put("document.x", "MARK"),
    }[place]
    refused(data.replace(b'"MARK"', value.encode()), "M3")


def test_an_integer_of_a_million_digits_costs_no_time() -> None:
    started = time.monotonic()
    refused(raw(f'"x": {"9" * 1_000_000}'), "M3")
    assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    "member",
    [
        r'"x": "\ud800"',
        r'"x": ["a\udc00b"]',
        r'"x": {"y": "\ud800"}',
        '"é": 1',
        r'"a\u0000": 1',
        r'"\ud800": 1',
        '"x": {"ключ": 1}',
        r'"x": {"\u007f": 1}',
    ],
)
def test_text_is_unicode_and_keys_are_printable_ascii(member: str) -> None:
    refused(raw(member), "M4")


def test_nesting_is_bounded() -> None:
    room = DEFAULT.nesting_max - 2
    assert decode(put("content.x", nested(room))).extra
    refused(put("content.x", nested(room + 1)), "M5")
    refused(put("file.x", nested(DEFAULT.nesting_max - 5)), "M5")
    refused(put("document.x", nested(DEFAULT.nesting_max)), "M5")
    refused(put("document.signatures", nested(DEFAULT.nesting_max)), "M5")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_deep_nesting_ends_in_an_error_not_a_crash(text: str) -> None:
    refused(text.encode(), "M5")
    refused(raw(f'"x": {text}'), "M5")


def test_nesting_deeper_than_this_code_can_walk_ends_in_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # The parser of a later Python can read more levels than Python code can call itself.
    value = nested(100_000)
    monkeypatch.setattr(strict_json, "parse", lambda data, limits: {**document(), "x": value})
    refused(b"", "M5", Limits(nesting_max=10**6))


def test_nesting_near_the_recursion_limit_ends_in_an_error_too() -> None:
    refusals = set()
    for depth in range(700, 1100, 10):
        try:
            decode(
                put("content.x", "?").replace(b'"?"', b"[" * depth + b"]" * depth), Limits(nesting_max=10**6)
            )
        except ManifestError as error:
            refusals.add(error.rule)
    assert refusals == {"M5"}


@pytest.mark.parametrize(
    "where",
    REQUIRED,
)
def test_required_keys_are_there(where: str) -> None:
    assert repr(where.split(".")[1]) in refused(without(where), "M6")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("document.diachunk", "1"),
        ("document.diachunk", True),
        ("document.content", []),
        ("document.hints", []),
        ("document.hints", None),
        ("document.signatures", {}),
        ("content.name", 1),
        ("content.revision", None),
        ("content.chunking", []),
        ("content.requires", "x"),
        ("content.requires", [1]),
        ("content.components", {}),
        ("content.components", [1]),
        ("content.components", [[]]),
        ("component.name", None),
        ("component.files", "ab"),
        ("component.files", ["ab"]),
        ("component.upstream", "hub"),
        ("component.upstream", {}),
        ("file.path", ["a"]),
        ("file.size", "5"),
        ("file.size", True),
        ("file.blake3", 5),
        ("file.sha256", None),
        ("file.chunks", {"a": 1}),
        ("file.chunks", HELLO),
        ("hints.origins", "https://example.org"),
        ("hints.origins", [1]),
        ("hints.places", {}),
    ],
)
def test_known_keys_have_their_type(where: str, value: object) -> None:
    refused(put(where, value), "M6")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (put("document.diachunk", 2), "made by a newer diachunk"),
        (put("document.diachunk", 0), "no manifest version 0"),
        (put("content.requires", ["delta"]), "made by a newer diachunk: needs 'delta'"),
        (
            put("content.requires", ["delta"] * 9 + [str(i) * 200 for i in range(500)]),
            "made by a newer diachunk",
        ),
        (json.dumps({"diachunk": 2}).encode(), "made by a newer diachunk"),
        (json.dumps({"diachunk": 1, "content": {"requires": ["x"]}}).encode(), "newer diachunk: needs 'x'"),
    ],
)
def test_a_newer_manifest_is_refused_as_such(data: bytes, says: str) -> None:
    assert says in refused(data, "M7")


def test_values_that_fill_memory_are_refused_before_parsing() -> None:
    started = time.monotonic()
    refused(json.dumps({"x": "MARK"}).encode().replace(b'"MARK"', b"[" + b"[]," * 20_000_000 + b"0]"), "M12")
    assert time.monotonic() - started < 3
