"""A manifest's id must never change: these constants were made with jq and b3sum, not with this code."""

from __future__ import annotations

from pathlib import Path

from diachunk.digest import derive_id
from diachunk.manifest import decode, encode, write

HERE = Path(__file__).parent
MANIFEST = (HERE / "small_manifest.json").read_bytes()
CANONICAL = (HERE / "small_manifest.canonical.json").read_bytes()
ID = "af58c6bd7aa0e9f193d8b8fa7e2bcd06dc465b3ed09024288abd9c86db72c780"


def test_the_id_of_a_committed_manifest_is_frozen() -> None:
    assert decode(MANIFEST).hex_id == ID
    assert derive_id([CANONICAL]).hex() == ID


def test_the_canonical_bytes_are_frozen() -> None:
    assert b"".join(write.canonical_content(decode(MANIFEST))) == CANONICAL


def test_the_written_form_is_frozen() -> None:
    assert encode(decode(MANIFEST)) == MANIFEST


def test_a_committed_manifest_means_what_it_meant() -> None:
    manifest = decode(MANIFEST)
    assert manifest.ref == "nari-labs/dia-tiny@main"
    assert [(component.name, file.path, file.size) for component, file in manifest.walk()] == [
        ("model", "config.json", 22),
        ("model", "weights/model.safetensors", 262148),
        ("model", "empty.txt", 0),
        ("vocoder", "weights.pth", 7),
    ]
    assert manifest.components[0].upstream["repo"] == "nari-labs/Dia"
    assert manifest.components[0].files[1].extra == {"license": "apache-2.0"}
    assert manifest.extra == {"note": "Grüße"}
    assert manifest.origins == ("https://example.org/dia",)
