"""What other nodes answer, read with suspicion: P2, P4, P5, P6 and P9 of docs/protocol.md. Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diachunk.digest import Digest, parse_digest
from diachunk.errors import printable
from diachunk.limits import KiB
from diachunk.manifest.names import is_name, is_revision
from diachunk.node.model import Address
from diachunk.node.views import Holding

SMALL_BYTES_MAX = 256 * KiB
"""Of P2, P4 and P9 (P15)."""
_MANIFESTS_MAX = 1000
_PEERS_MAX = 64
_COMPONENTS_MAX = 4096
_TAKING_MAX = 4096
_NUMBER_MAX = 2**53 - 1
_NODE = re.compile(r"[0-9a-f]{32}")
_EPOCH = re.compile(r"[0-9a-f]{16}")
_STORE = re.compile(r"[\x21-\x7e]{1,128}")


class Malformed(Exception):
    """An answer that no node gives. Says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """P2: what a node says of itself."""

    node: str
    store: str
    version: str
    secret: bool
    manifests: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class Others:
    """P9: how the other one sees us, and whom it knows: (address, seconds since it was heard of)."""

    you: str
    peers: tuple[tuple[Address, float], ...]


@dataclass(frozen=True, slots=True)
class HaveAnswer:
    """P5. Exactly one of `full` and `gained` is not None.

    Attributes:
        full: the packed bitmap.
        gained: distinct digests by number, since the version asked for.
        taking: number -> bytes so far.
    """

    epoch: str
    version: int
    full: bytes | None
    gained: tuple[int, ...] | None
    wants: tuple[str, ...] | None
    feeds: bool
    taking: dict[int, int]


def have_bytes_max(bits: int) -> int:
    """How large an answer to P5 or P6 over so many bits may be: the bitmap, and a little more."""
    return 64 * KiB + bits


def parse_object(data: bytes) -> dict[str, Any]:
    """Reads one JSON object.

    Raises:
        Malformed: it is none.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed("an answer that is no JSON") from error
    if type(value) is not dict:
        raise Malformed("an answer that is no JSON object")
    return value


def parse_node(data: bytes) -> NodeFacts:
    """P2. What is wrong with single manifests costs these alone.

    Raises:
        Malformed: it is no node's answer.
    """
    value = parse_object(data)
    node, store, version = value.get("node"), value.get("store"), value.get("version")
    if value.get("diachunk") != 1 or type(node) is not str or not _NODE.fullmatch(node):
        raise Malformed("no node of this kind")
    if type(store) is not str or not _STORE.fullmatch(store):
        raise Malformed("a node without a store")
    held = value.get("manifests")
    found = [_holding(each) for each in held[:_MANIFESTS_MAX]] if type(held) is list else []
    return NodeFacts(
        node,
        store,
        printable(version[:32]) if type(version) is str else "",
        value.get("secret") is True,
        tuple(each for each in found if each is not None),
    )


def _holding(value: object) -> Holding | None:
    if type(value) is not dict:
        return None
    try:
        found = parse_digest(value.get("id"))
        name, revision = value.get("name"), value.get("revision")
        if (
            type(name) is not str
            or type(revision) is not str
            or not (is_name(name) and is_revision(revision))
        ):
            return None
        total, have = _number(value.get("total_bytes")), _number(value.get("have_bytes"))
    except (ValueError, Malformed):
        return None
    return Holding(found, name, revision, total, min(have, total), value.get("wanted") is True)


def parse_others(data: bytes) -> Others:
    """P9. Entries that are no addresses are left out.

    Raises:
        Malformed: it is no such answer.
    """
    value = parse_object(data)
    peers = value.get("peers")
    if type(peers) is not list:
        raise Malformed("an exchange without peers")
    found = [_peer(each) for each in peers[:_PEERS_MAX]]
    return Others(_ip(value.get("you")) or "", tuple(each for each in found if each is not None))


def _peer(value: object) -> tuple[Address, float] | None:
    if type(value) is not dict:
        return None
    host, port, age = _ip(value.get("host")), value.get("port"), value.get("age_s")
    if host is None or type(port) is not int or not 0 < port < 65536:
        return None
    if not isinstance(age, int | float) or not 0 <= age < 1e6:  # also refuses NaN
        return None
    return Address(host, port), float(age)


def _ip(value: object) -> str | None:
    """An address in canonical text; None for names, zones and everything else."""
    if type(value) is not str or len(value) > 64 or "%" in value:
        return None
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


def parse_refs(data: bytes, name: str) -> list[tuple[str, Digest]]:
    """P4: [(revision, id)].

    Raises:
        Malformed: it is no such answer, or of another name.
    """
    value = parse_object(data)
    refs = value.get("refs")
    if value.get("name") != name or type(refs) is not list:
        raise Malformed("refs of another name")
    found = []
    for each in refs[:_MANIFESTS_MAX]:
        revision = each.get("revision") if type(each) is dict else None
        if type(revision) is not str or not is_revision(revision):
            raise Malformed("a ref without a revision")
        try:
            found.append((revision, parse_digest(each.get("id"))))
        except ValueError as error:
            raise Malformed("a ref that cannot be read") from error
    return found


def parse_have(data: bytes, bits: int, *, may_gain: bool) -> HaveAnswer:
    """P5 of a manifest with so many distinct digests.

    Args:
        may_gain: whether `gained` was asked for.

    Raises:
        Malformed: it is no such answer, or of another number of bits.
    """
    value = parse_object(data)
    epoch, wants = value.get("epoch"), value.get("wants")
    if type(epoch) is not str or not _EPOCH.fullmatch(epoch):
        raise Malformed("a bitmap without an epoch")
    _check_bits(value, bits)
    full = gained = None
    if "full" in value:
        full = _packed(value["full"], bits)
    elif may_gain:
        gained = _numbers(value.get("gained"), bits)
    else:
        raise Malformed("no bitmap")
    if wants is not None:
        wants = _components(wants)
    taking = value.get("taking")
    pairs = {} if wants is None or taking is None else _pairs(taking, bits)
    version = _number(value.get("version"))
    return HaveAnswer(epoch, version, full, gained, wants, value.get("feeds") is True, pairs)


def parse_bits(data: bytes, bits: int) -> bytes:
    """P6: the packed bitmap over the digests that were asked for.

    Raises:
        Malformed: it is no such answer.
    """
    value = parse_object(data)
    _check_bits(value, bits)
    return _packed(value.get("full"), bits)


def _check_bits(value: dict[str, Any], bits: int) -> None:
    if type(value.get("bits")) is not int or value["bits"] != bits:
        raise Malformed(f"a bitmap of {str(value.get('bits'))[:20]} bits, not {bits}")


def _packed(value: object, bits: int) -> bytes:
    size = (bits + 7) // 8
    if type(value) is not str or len(value) != (size + 2) // 3 * 4:
        raise Malformed(f"a bitmap of another size than {bits} bits")
    try:
        packed = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("a bitmap that is no base64") from error
    if len(packed) != size or (bits & 7 and packed[-1] >> (bits & 7)):
        raise Malformed(f"a bitmap with more than {bits} bits")
    return packed


def _numbers(value: object, bits: int) -> tuple[int, ...]:
    if type(value) is not list or len(value) > bits:
        raise Malformed("no bitmap")
    for each in value:
        if type(each) is not int or not 0 <= each < bits:
            raise Malformed(f"bit {str(each)[:20]} of {bits}")
    return tuple(value)


def _pairs(value: object, bits: int) -> dict[int, int]:
    if type(value) is not list:
        raise Malformed("takings that are no list")
    pairs: dict[int, int] = {}
    for each in value[:_TAKING_MAX]:
        if type(each) is not list or len(each) != 2:
            raise Malformed("a taking that is no pair")
        index, size = each
        if type(index) is not int or not 0 <= index < bits:
            raise Malformed(f"takes number {str(index)[:20]} of {bits}")
        pairs[index] = _number(size)
    return pairs


def _components(value: object) -> tuple[str, ...]:
    if type(value) is not list or len(value) > _COMPONENTS_MAX:
        raise Malformed("wants that are no list")
    if not all(type(each) is str and len(each) <= 255 for each in value):
        raise Malformed("a component that is no name")
    return tuple(value)


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _NUMBER_MAX:
        raise Malformed("a number that is none")
    return value


def dump(value: dict[str, object] | Sequence[object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
