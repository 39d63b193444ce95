"""Digests: BLAKE3, and a strict reading of their text."""

from __future__ import annotations

import pytest

from diachunk.digest import DIGEST_BYTES, derive_id, digest_of, hasher, parse_digest

EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
"""BLAKE3 of nothing, from the official test vectors."""


def test_it_is_blake3() -> None:
    assert digest_of(b"").hex() == EMPTY
    assert len(digest_of(b"x")) == DIGEST_BYTES


def test_bytes_in_pieces_give_the_same_digest() -> None:
    running = hasher()
    for piece in (b"a", b"", b"bc"):
        running.update(piece)
    assert running.digest() == digest_of(b"abc") == digest_of(memoryview(bytearray(b"abc")))


def test_a_manifest_id_is_in_a_domain_of_its_own() -> None:
    assert derive_id([b"abc"]) != digest_of(b"abc")
    assert derive_id([b"abc"]) == derive_id([b"abc"]) != derive_id([b"abd"])


def test_the_text_goes_there_and_back() -> None:
    assert parse_digest(EMPTY) == digest_of(b"")


@pytest.mark.parametrize(
    "text",
    ["", EMPTY.upper(), EMPTY[:-1], f"{EMPTY}0", f"{EMPTY}\n", f" {EMPTY[1:]}", "g" * 64, "\uff11" * 64],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        parse_digest(text)


@pytest.mark.parametrize("value", [None, 5, digest_of(b""), EMPTY.encode(), [EMPTY]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        parse_digest(value)
