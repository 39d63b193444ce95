"""What other nodes answer: P2, P4, P5, P6, P9 and P20 of docs/protocol.md."""

from __future__ import annotations

import base64
import json

from diachunk.bitmap import Bitmap
from diachunk.node.around.answers import (
    Malformed,
    parse_bits,
    parse_have,
    parse_node,
    parse_others,
    parse_refs,
)
from diachunk.node.around.questions import parse_ids
from fuzz.checks import Reader, bounded

DICTIONARY = (
    b'"epoch":"', b'"version":', b'"bits":', b'"full":"', b'"gained":[', b'"wants":', b'"taking":[[', b'"node":"',
    b'"store":"', b'"manifests":[', b'"diachunk":1', b'"peers":[{"host":"', b'"port":', b'"age_s":', b'"refs":[{',
    b"null", b"true", b"1e999", b"NaN", b"-1", b"99999999999999999999", b"[[[[", b"\\ud800", b"==", b"::1", b"%lo",
)  # fmt: skip
_BITS = 13
_FULL = base64.b64encode(Bitmap(_BITS, [0, 12]).to_bytes()).decode()


def fuzz_one(data: bytes) -> None:
    """One byte that says how many bits there are, then the answer."""
    reader = Reader(data)
    bits = reader.byte() % 40
    text, size = reader.rest(), len(data)
    have, _ = bounded(lambda: parse_have(text, bits, may_gain=False), size, errors=(Malformed,))
    assert have is None or (have.full is not None and have.gained is None)
    have, _ = bounded(lambda: parse_have(text, bits, may_gain=True), size, errors=(Malformed,))
    if have is not None:
        assert (have.full is None) != (have.gained is None)
        assert have.full is None or len(Bitmap.from_bytes(have.full, bits)) <= bits
        assert all(0 <= number < bits for number in (*(have.gained or ()), *have.taking))
    packed, _ = bounded(lambda: parse_bits(text, bits), size, errors=(Malformed,))
    assert packed is None or Bitmap.from_bytes(packed, bits).length == bits
    facts, _ = bounded(lambda: parse_node(text), size, errors=(Malformed,))
    if facts is not None:
        assert facts.version.isprintable()
        assert all(0 <= each.have_bytes <= each.total_bytes for each in facts.manifests)
    others, _ = bounded(lambda: parse_others(text), size, errors=(Malformed,))
    assert others is None or all(0 < address.port < 65536 and age >= 0 for address, age in others.peers)
    refs, _ = bounded(lambda: parse_refs(text, "lab/x"), size, errors=(Malformed,))
    assert refs is None or all(len(each) == 32 for _, each in refs)
    ids, _ = bounded(lambda: parse_ids(text), size, errors=(Malformed,))
    assert ids is None or (len(ids) <= 16 and all(len(each) == 32 for each in ids))


def seeds() -> list[bytes]:
    have = {"epoch": "ab" * 8, "version": 3, "bits": _BITS, "full": _FULL, "wants": ["model"], "feeds": True}
    news = {"epoch": "ab" * 8, "version": 3, "bits": _BITS, "gained": [3], "wants": None, "taking": []}
    held = {"id": "ab" * 32, "name": "lab/x", "revision": "main", "total_bytes": 9, "have_bytes": 4}
    node = {"diachunk": 1, "node": "ab" * 16, "store": "cd" * 8, "version": "1", "manifests": [held]}
    peers = {"you": "10.0.0.5", "peers": [{"host": "fd00::7", "port": 8420, "age_s": 3}]}
    refs = {"name": "lab/x", "refs": [{"revision": "main", "id": "ab" * 32}]}
    values = [have, {**have, "taking": [[1, 70]]}, news, node, peers, refs, {"manifests": ["ab" * 32]}]
    return [bytes([_BITS]) + json.dumps(each).encode() for each in values] + [b"\x0d" + b"[" * 4000]
