"""What strangers send to be trusted: the header that proves a secret, and signatures in a manifest."""

from __future__ import annotations

import json
from functools import cache

from diachunk.manifest.signed import ARMOUR_CHARS_MAX, KIND, Signature
from diachunk.sources.secret import Secret
from fuzz.checks import bounded, text_of

DICTIONARY = (b"Bearer ", b"Diachunk ", b":", b"%eth0", b"[::1]:1", b"::ffff:", b"1764000000", b'"kind": "sshsig"',
    b'"serial": ', b'"signature": "', b"-----BEGIN SSH SIGNATURE-----\\n", b"-----END SSH SIGNATURE-----")  # fmt: skip
_VALUE = b"correct horse battery staple"
_NOW = 1_764_000_000
_ASKED = ("GET", "/v1/node", "10.0.0.7:8420")


@cache
def _secret() -> Secret:
    return Secret(_VALUE)


def fuzz_one(data: bytes) -> None:
    text = text_of(data)
    taken, _ = bounded(lambda: _secret().check(text, *_ASKED, _NOW), len(data))
    words = text.split()
    assert not taken or words[1:] == _VALUE.decode().split() or words[1] == _good().split()[1]
    for method, target, address in (("GET", text, _ASKED[2]), ("GET", "/v1/node", text)):
        proof, _ = bounded(lambda m=method, t=target, a=address: _secret().proof(m, t, a, _NOW), len(data))  # type: ignore[misc]
        assert proof is not None
        assert _secret().check(proof, method, target, address, _NOW)
    _read_signature(text, len(data))


def _read_signature(text: str, size: int) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = {"kind": KIND, "serial": size, "signature": text}
    signature, _ = bounded(lambda: Signature.read(value), size)
    if signature is not None:
        assert len(signature.armour) <= ARMOUR_CHARS_MAX
        assert signature.armour.isascii()
        assert 0 <= signature.serial < 2**53
        assert Signature.read(signature.entry()) == signature


def _good() -> str:
    return _secret().proof(*_ASKED, _NOW)


def seeds() -> list[bytes]:
    armour = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"
    entry = json.dumps(Signature(_NOW, armour).entry())
    return [_good().encode(), b"Bearer " + _VALUE, entry.encode(), armour.encode(), b"[fe80::1%eth0]:8420"]
