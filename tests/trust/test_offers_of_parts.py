"""What others say of a whole, as far as it is about a part: cut to it, and nothing else of it is looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diachunk.api import asking
from diachunk.api.trust.naming import How, Offer
from diachunk.digest import digest_of
from diachunk.manifest import Component, FileEntry, Manifest, build
from diachunk.manifest.parts import part_of, part_of_manifest
from diachunk.manifest.recipe import HubUpstream, Recipe, RecipeComponent
from store_files import chunk_list

WHOLE = Recipe(
    "lab/dia", "main", tuple(RecipeComponent(name, HubUpstream("lab/x")) for name in ("model", "vocoder"))
)
PART = part_of(WHOLE, ["vocoder"])


def manifest_of(**files: bytes) -> Manifest:
    parts = [
        Component(name, (FileEntry("weights.bin", len(data), digest_of(data), chunk_list([data])),))
        for name, data in files.items()
    ]
    return build("lab/dia", "main", parts)


def offer(manifest: Manifest | None, host: int) -> Offer:
    manifest_id = b"x" * 32 if manifest is None else manifest.id
    return Offer(f"10.0.0.{host}:8420", How.NAMED, manifest_id, manifest)


def test_what_each_says_of_the_part_counts_and_who_has_none_of_it_says_nothing() -> None:
    true, other = manifest_of(model=b"m", vocoder=b"v"), manifest_of(model=b"evil", vocoder=b"v")
    lie = manifest_of(model=b"m", vocoder=b"evil")
    without = manifest_of(model=b"m")
    offers = [offer(each, host) for host, each in enumerate((true, None, without, other, lie, true))]
    found = list(asking._offers_of_part(PART, offers))
    assert [each.address.partition(":")[0] for each in found] == [f"10.0.0.{host}" for host in (0, 3, 4, 5)]
    assert [each.id for each in found[:2]] == [part_of_manifest(true, PART).id] * 2, (
        "of the vocoder they agree"
    )
    assert found[2].id != found[0].id
    assert {each.manifest.ref for each in found if each.manifest} == {"lab/dia@main.vocoder"}


def test_a_manifest_that_many_offer_is_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts: list[Manifest] = []

    def cut(manifest: Manifest, part: Recipe) -> Manifest:
        cuts.append(manifest)
        return part_of_manifest(manifest, part)

    monkeypatch.setattr(asking, "part_of_manifest", cut)
    manifest = manifest_of(model=b"m", vocoder=b"v")
    offers = [replace(offer(manifest, host), how=How.MDNS) for host in range(40)]
    assert len(list(asking._offers_of_part(PART, offers))) == 40
    assert len(cuts) == 1
