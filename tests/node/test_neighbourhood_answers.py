"""Others' answers, read with suspicion. P2, P4, P5, P6, P9 and P15 of docs/protocol.md."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from diachunk.bitmap import Bitmap
from diachunk.node.around.answers import (
    Malformed,
    have_bytes_max,
    parse_bits,
    parse_have,
    parse_node,
    parse_others,
    parse_refs,
)
from diachunk.node.model import Address

BITS = 13
FULL = base64.b64encode(Bitmap(BITS, [0, 12]).to_bytes()).decode()
HAVE = {"epoch": "ab" * 8, "version": 3, "bits": BITS, "full": FULL, "wants": ["model"], "feeds": True}
NODE = {"diachunk": 1, "node": "ab" * 16, "store": "cd" * 8, "version": "1.0", "secret": False}
HELD = {
    "id": "ab" * 32,
    "name": "lab/x",
    "revision": "main",
    "total_bytes": 9,
    "have_bytes": 4,
    "wanted": True,
}


def dumped(value: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({**value, **changes}).encode()


def test_a_bitmap_is_read_whole_or_as_what_was_gained() -> None:
    whole = parse_have(dumped(HAVE, taking=[[1, 70]]), BITS, may_gain=False)
    assert set(Bitmap.from_bytes(whole.full or b"", BITS)) == {0, 12}
    assert (whole.wants, whole.feeds, whole.taking) == (("model",), True, {1: 70})
    news = {key: value for key, value in HAVE.items() if key != "full"} | {"gained": [3, 12]}
    assert parse_have(dumped(news), BITS, may_gain=True).gained == (3, 12)
    assert parse_have(dumped(news, wants=None, taking=[[1, 1]]), BITS, may_gain=True).taking == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"bits": 12},
        {"bits": "13"},
        {"bits": True},
        {"full": base64.b64encode(b"\x00\xff").decode()},
        {"full": base64.b64encode(bytes(3)).decode()},
        {"full": "!" * 4},
        {"full": None},
        {"epoch": "x" * 16},
        {"epoch": None},
        {"version": -1},
        {"version": 2**70},
        {"version": 1.0},
        {"wants": "model"},
        {"wants": [3]},
        {"wants": ["x" * 300]},
        {"taking": 5},
        {"taking": [[BITS, 1]]},
        {"taking": [[0, -1]]},
        {"taking": [[0]]},
    ],
)
def test_a_bitmap_that_contradicts_the_manifest_or_itself_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_have(dumped(HAVE, **changes), BITS, may_gain=True)


@pytest.mark.parametrize("gained", [[BITS], [-1], [1.5], [True], ["1"], "0", None, [0] * 14])
def test_gains_outside_of_the_manifest_are_none(gained: Any) -> None:
    news = {key: value for key, value in HAVE.items() if key != "full"}
    with pytest.raises(Malformed):
        parse_have(dumped(news, gained=gained), BITS, may_gain=True)


def test_of_a_node_what_can_be_read_is_kept() -> None:
    wrong = [5, None, {**HELD, "id": "x"}, {**HELD, "name": "../x"}, {**HELD, "total_bytes": -1}]
    facts = parse_node(dumped(NODE, manifests=[HELD, *wrong], version="1\x1b[31m" + "x" * 100))
    assert [each.id for each in facts.manifests] == [bytes.fromhex("ab" * 32)]
    assert facts.version.isprintable()
    assert len(facts.version) <= 32
    assert parse_node(dumped(NODE, manifests=[{**HELD, "have_bytes": 99}])).manifests[0].have_bytes == 9
    assert len(parse_node(dumped(NODE, manifests=[HELD] * 3000)).manifests) == 1000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{" * 100,
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'{"diachunk": 1' + b"0" * 5000 + b"}",
        dumped(NODE, diachunk=2),
        dumped(NODE, node="AB" * 16),
        dumped(NODE, node=["ab"]),
        dumped(NODE, store=""),
        dumped(NODE, store="\n"),
    ],
)
def test_what_is_no_nodes_answer_is_none(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_node(data)


def test_of_others_only_addresses_are_taken_and_at_most_64() -> None:
    good = {"host": "10.0.0.7", "port": 8420, "age_s": 3}
    changes: list[dict[str, Any]] = [
        {"host": "lab-7"},
        {"host": "fe80::1%eth0"},
        {"host": "10.0.0.07"},
        {"port": 0},
        {"port": "8420"},
        {"age_s": -1},
        {"age_s": float("nan")},
        {"age_s": 1e300},
        {"age_s": None},
    ]
    mapped = {**good, "host": "::ffff:10.0.0.8"}
    data = dumped({}, you="10.0.0.5", peers=[good, 7, *({**good, **each} for each in changes), mapped])
    found = parse_others(data)
    assert found.you == "10.0.0.5"
    assert [address for address, _ in found.peers] == [Address("10.0.0.7", 8420), Address("10.0.0.8", 8420)]
    assert len(parse_others(dumped({}, peers=[good] * 5000)).peers) == 64
    assert parse_others(dumped({}, you="evil.example", peers=[])).you == ""


def test_refs_are_those_of_the_name_that_was_asked_for() -> None:
    refs = [{"revision": "main", "id": "ab" * 32}]
    assert parse_refs(dumped({}, name="lab/x", refs=refs), "lab/x") == [("main", bytes.fromhex("ab" * 32))]
    for wrong in (
        dumped({}, name="lab/y", refs=refs),
        dumped({}, name="lab/x", refs=[{"revision": "../x", "id": "ab" * 32}]),
        dumped({}, name="lab/x", refs=[{"revision": "main", "id": "AB" * 32}]),
        dumped({}, name="lab/x", refs=[7]),
    ):
        with pytest.raises(Malformed):
            parse_refs(wrong, "lab/x")


def test_bits_over_digests_are_as_many_as_were_asked_for() -> None:
    assert parse_bits(dumped({}, bits=BITS, full=FULL), BITS) == Bitmap(BITS, [0, 12]).to_bytes()
    with pytest.raises(Malformed):
        parse_bits(dumped({}, bits=BITS, full=FULL), 12)


@pytest.mark.parametrize("bits", [1, 1600, 250_000, 16_000_000])
def test_what_an_honest_node_sends_of_so_many_bits_is_within_the_bound(bits: int) -> None:
    assert have_bytes_max(bits) > (bits + 7) // 8 * 4 // 3 + 256 * 40
