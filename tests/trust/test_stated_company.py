"""A recipe by way of another machine's manifest: the same checkpoint with the same id, and no way to be deceived."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.api.recipes import Pick, hub_recipe, state
from diachunk.api.trust.naming import How, Offer
from diachunk.api.trust.stated import draw_in_company
from diachunk.digest import digest_of
from diachunk.errors import TransferIncomplete
from diachunk.manifest import ChunkList, Component, FileEntry, Manifest, build
from diachunk.manifest.stated import StatedCheckpoint, matches_statement
from diachunk.store.store import Store
from diachunk.testing import faults
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import assert_store_is_right, tree
from fixtures.hub_world import VOCODER, hub_serving, noise, vocoder_files
from fixtures.watch import Told

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

CODEC = vocoder_files()["codec.bin"]
WRONG = noise("something else", len(CODEC))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(monkeypatch, {VOCODER: vocoder_files()}) as serving:
        yield serving


@pytest.fixture
def theirs(hub: Hub, tmp_path: Path) -> Manifest:
    """What a machine has that fetched it before."""
    return diachunk.fetch(f"hub:{VOCODER}", home=tmp_path / "theirs").manifest


@pytest.fixture
def before(hub: Hub, theirs: Manifest) -> int:
    """Bytes of files that the Hub gave until now."""
    return hub.bytes_sent()


def stated_by(context: Context) -> StatedCheckpoint:
    return state(hub_recipe(f"hub:{VOCODER}", Pick()), context)


def offer(manifest: Manifest | None, host: int = 1, how: How = How.MDNS) -> Offer:
    return Offer(f"10.0.0.{host}:8420", how, b"x" * 32 if manifest is None else manifest.id, manifest)


def entry_of(file: FileEntry, data: bytes, piece_bytes: int) -> FileEntry:
    """The file's names, and the pieces of other bytes, or of the same in another cut."""
    pieces = [data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes)]
    chunks = ChunkList.of((len(piece), digest_of(piece)) for piece in pieces)
    return FileEntry(file.path, len(data), digest_of(data), chunks, file.sha256, git=file.git)


def telling(theirs: Manifest, data: bytes, piece_bytes: int = 1 << 20) -> Manifest:
    """Their manifest with these bytes behind the codec's name."""
    component = theirs.components[0]
    files = [
        entry_of(each, data, piece_bytes) if each.path == "codec.bin" else each for each in component.files
    ]
    parts = [Component("", tuple(files), component.upstream)]
    return build(theirs.name, theirs.revision, parts, chunking=theirs.chunking)


def files_of(snapshot: Manifest, home: Path) -> dict[str, bytes]:
    store = Store.open(home)
    found = {}
    for _, file in snapshot.walk():
        path = store.blobs.find(file.blake3, file.size, file.chunks).path
        assert path is not None
        found[file.path] = path.read_bytes()
    return found


# --- which manifests match -----------------------------------------------------------------------------------


def test_a_manifest_of_the_same_files_matches_whatever_its_chunks_say(theirs: Manifest, home: Path) -> None:
    stated = stated_by(Context.make(home))
    assert matches_statement(theirs, stated)
    assert matches_statement(telling(theirs, WRONG), stated), "a claim"


@pytest.mark.parametrize(
    "change", ["name", "revision", "upstream", "size", "sha256", "git", "path", "more", "fewer"]
)
def test_a_manifest_of_other_files_does_not(theirs: Manifest, home: Path, change: str) -> None:
    stated = stated_by(Context.make(home))
    component = theirs.components[0]
    files = {each.path: each for each in component.files}
    codec, config = files["codec.bin"], files["config.json"]
    if change in ("name", "revision"):
        other = dataclasses.replace(theirs, **{change: "other"})  # type: ignore[arg-type]
    else:
        upstream = {**component.upstream, "commit": "0" * 40} if change == "upstream" else component.upstream
        changed = {
            "size": [dataclasses.replace(codec, size=codec.size + 1), config],
            "sha256": [dataclasses.replace(codec, sha256=""), config],
            "git": [codec, dataclasses.replace(config, git="0" * 40)],
            "path": [dataclasses.replace(codec, path="codec2.bin"), config],
            "more": [codec, config, dataclasses.replace(config, path="x")],
            "fewer": [codec],
        }.get(change, [codec, config])
        other = dataclasses.replace(theirs, components=(Component("", tuple(changed), upstream),))
    assert not matches_statement(other, stated)


# --- fetching by one -----------------------------------------------------------------------------------------


def test_a_recipe_comes_from_other_machines_and_upstream_gives_nothing(
    hub: Hub, theirs: Manifest, before: int, home: Path, tmp_path: Path
) -> None:
    context = Context.make(home)
    stated = stated_by(context)
    told = Told()
    hub.fail(Part.CDN, faults.Status(503))
    hub.fail(Part.RESOLVE, faults.Status(503))
    with Nginx(tree(tmp_path / "peer", vocoder_files())) as peer:
        hinted = dataclasses.replace(theirs, origins=("http://10.0.0.66/",), places=({"kind": "evil"},))
        offers = [offer(None, 3), offer(hinted)]
        manifest, report = draw_in_company(stated, lambda: offers, context, origins=[peer.url], listener=told)
    assert manifest.id == theirs.id
    assert hub.bytes_sent() == before
    assert report.fetched_bytes == told.total_bytes == report.total_bytes == stated.total_bytes
    assert files_of(manifest, home) == dict(vocoder_files())
    assert_store_is_right(home)
    assert Store.open(home).catalog.get(manifest.id) == theirs, "with the hints that a recipe gives"
    again = diachunk.place(theirs.hex_id, into=[tmp_path / "shown"], home=home)
    assert again is not None


def test_a_manifest_that_lies_about_the_bytes_costs_time_and_nothing_else(
    hub: Hub, theirs: Manifest, home: Path, tmp_path: Path
) -> None:
    lie = telling(theirs, WRONG)
    context = Context.make(home)
    stated = stated_by(context)
    told = Told()
    with Nginx(tree(tmp_path / "liar", {**vocoder_files(), "codec.bin": WRONG})) as liar:
        manifest, report = draw_in_company(
            stated, lambda: [offer(lie)], context, origins=[liar.url], listener=told
        )
    assert manifest.id == theirs.id
    assert files_of(manifest, home) == dict(vocoder_files())
    catalog = Store.open(home).catalog
    assert catalog.ids() == [theirs.id], "the lie is forgotten"
    notices = [each.text for each in told.events if isinstance(each, diachunk.Notice)]
    assert any("10.0.0.1:8420" in text for text in notices)
    assert told.total_bytes == stated.total_bytes == report.total_bytes


def test_another_cut_of_the_right_bytes_yields_our_own_manifest(
    hub: Hub, theirs: Manifest, before: int, home: Path, tmp_path: Path
) -> None:
    other = telling(theirs, CODEC, 300_000)
    context = Context.make(home)
    with Nginx(tree(tmp_path / "peer", vocoder_files())) as peer:
        manifest, _ = draw_in_company(
            stated_by(context), lambda: [offer(other)], context, origins=[peer.url], listener=Told()
        )
    assert manifest.id == theirs.id
    assert files_of(manifest, home) == dict(vocoder_files())


def test_an_honest_machine_is_found_behind_a_liar(
    hub: Hub, theirs: Manifest, before: int, home: Path, tmp_path: Path
) -> None:
    lie = telling(theirs, WRONG)
    context = Context.make(home)
    with Nginx(tree(tmp_path / "peer", vocoder_files())) as peer:
        strangers = [offer(lie, host) for host in range(1, 5)]
        offers = [*strangers, offer(theirs, 5, How.NAMED)]
        manifest, _ = draw_in_company(
            stated_by(context), lambda: offers, context, origins=[peer.url], listener=Told()
        )
    assert manifest.id == theirs.id
    assert lie.id not in Store.open(home).catalog.ids(), "the named one went first"


def test_machines_that_are_gone_leave_it_to_upstream(hub: Hub, theirs: Manifest, home: Path) -> None:
    context = Context.make(home)
    nobody = telling(theirs, WRONG)
    manifest, _ = draw_in_company(stated_by(context), lambda: [offer(nobody)], context, listener=Told())
    assert manifest.id == theirs.id
    assert files_of(manifest, home) == dict(vocoder_files())


def test_where_nobody_has_it_it_fails_as_ever(hub: Hub, theirs: Manifest, home: Path) -> None:
    context = Context.make(home)
    stated = stated_by(context)
    hub.fail(Part.CDN, faults.Status(503))
    hub.fail(Part.RESOLVE, faults.Status(503))
    with pytest.raises(TransferIncomplete):
        draw_in_company(stated, lambda: [offer(theirs)], context, listener=Told())


def test_what_is_here_is_not_fetched_by_anybodys_manifest(hub: Hub, theirs: Manifest, tmp_path: Path) -> None:
    context = Context.make(tmp_path / "theirs")

    def nobody() -> list[Offer]:
        raise AssertionError("nothing is missing: nobody is to be asked")

    manifest, report = draw_in_company(stated_by(context), nobody, context, listener=Told())
    assert (manifest.id, report.fetched_bytes) == (theirs.id, 0)


def test_what_is_private_upstream_is_marked_before_the_offered_manifest_is_kept(
    hub: Hub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.private[VOCODER] = "hf_s3cret"
    monkeypatch.setenv("HF_TOKEN", "hf_s3cret")
    theirs = diachunk.fetch(f"hub:{VOCODER}", home=tmp_path / "theirs").manifest
    context = Context.make(home)
    was: list[bool] = []
    add = type(context.store.catalog).add

    def added(self: object, manifest: Manifest) -> None:
        was.append(context.store.catalog.is_private(manifest.id))
        add(context.store.catalog, manifest)

    monkeypatch.setattr(type(context.store.catalog), "add", added)
    with Nginx(tree(tmp_path / "peer", vocoder_files())) as peer:
        draw_in_company(
            stated_by(context), lambda: [offer(theirs)], context, origins=[peer.url], listener=Told()
        )
    assert was
    assert all(was)
