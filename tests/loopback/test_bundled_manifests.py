"""Every manifest that ships with the package is what publishing its files yields today."""

from __future__ import annotations

from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import bundled_manifests
from diachunk.manifest import decode, encode
from diachunk.testing.servers import Nginx
from fixtures.bundled import MAKERS, NETWORK, demo

MANIFESTS = Path(__file__).parents[2] / "manifests"
FILES = sorted(MANIFESTS.glob("*.json"))

pytestmark = pytest.mark.loopback


def test_each_manifest_has_a_proof_here() -> None:
    assert {each.stem for each in FILES} == set(MAKERS)


@pytest.mark.parametrize("file", FILES, ids=lambda each: each.stem)
def test_each_decodes_bears_its_files_name_and_is_written_as_publish_writes(file: Path) -> None:
    manifest = decode(file.read_bytes())
    assert manifest.name.rpartition("/")[2] == file.stem
    assert manifest.revision == "main"
    assert file.read_bytes() == encode(manifest)
    assert all(entry.sha256 for _, entry in manifest.walk())
    assert all(component.upstream["kind"] for component in manifest.components)


def test_they_are_known_by_name_without_having_been_fetched(home: Path) -> None:
    known = {each.name: each for each in bundled_manifests()}
    assert len(known) == len(FILES)
    for name, manifest in known.items():
        planned = diachunk.plan(name, home=home)
        assert planned.hex_id == manifest.hex_id
        assert planned.total_bytes > 0


def test_the_demo_checkpoint_is_what_its_manifest_says(home: Path, tmp_path: Path) -> None:
    made = demo(tmp_path / "demo")
    shipped = decode((MANIFESTS / "demo.json").read_bytes())
    assert made.id == shipped.hex_id
    assert {component.name for component in shipped.components} == {"model", "vocoder"}
    with Nginx(tmp_path / "demo") as origin:
        snapshot = diachunk.fetch("diachunk/demo", origins=[origin.url], home=home)
        assert origin.bytes_sent() == shipped.total_bytes
    assert snapshot.path("vocoder/model.safetensors").is_file()


@pytest.mark.network
@pytest.mark.parametrize("stem", sorted(NETWORK))
def test_real_weights_are_what_their_manifest_says(stem: str, tmp_path: Path) -> None:
    made = MAKERS[stem](tmp_path, None)
    assert made.id == decode((MANIFESTS / f"{stem}.json").read_bytes()).hex_id
