"""What is placed, as unmodified programs see it: beside, before and after what they download themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from diachunk.api.placing import Placed, place_manifest, undo_manifest
from diachunk.digest import digest_of
from diachunk.manifest import Manifest
from diachunk.places.hub import Hub as HubPlace
from diachunk.places.records import Records
from diachunk.testing.hub import Hub
from fixtures.placing import World, assert_clean, etag, from_hub, is_lfs, manifest_of, tree_of
from fixtures.programs import (
    HUB_0,
    HUB_1,
    HUB_2,
    HUBS,
    TRANSFORMERS,
    Program,
    python_of,
    run,
    run_command,
    said,
)
from fixtures.tiny_dia import (
    MODEL,
    MODEL_COMMIT,
    MODEL_FILES,
    SPEAK,
    VOCODER,
    VOCODER_COMMIT,
    VOCODER_FILES,
    TinyDia,
    tiny_dia,
)

__all__ = ["tiny_dia"]

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]
every_hub = pytest.mark.parametrize("program", HUBS, ids=lambda program: program.name)

SMALL = "lab/small"
OLD: Mapping[str, bytes] = {
    "config.json": b'{"v": 1}',
    "model.safetensors": bytes(range(256)) * 500,
    "README.md": b"#",
}
NEW: Mapping[str, bytes] = {**OLD, "config.json": b'{"v": 2}', "deep/er/extra.json": b"{}"}
OFFLINE = {"HF_HUB_OFFLINE": "1"}

LIST = """
import json, huggingface_hub as hub
info = hub.scan_cache_dir()
warnings = [str(each) for each in info.warnings if "CACHEDIR.TAG" not in str(each)]
repos = {
    repo.repo_id: {
        revision.commit_hash: sorted(str(file.file_path.relative_to(revision.snapshot_path)) for file in revision.files)
        for revision in repo.revisions
    }
    for repo in info.repos
}
print(json.dumps([warnings, repos]))
"""
DOWNLOAD = (
    "import huggingface_hub as hub; print(hub.snapshot_download({repository!r}, revision={revision!r}))"
)
LOCAL = """
import huggingface_hub as hub
print(hub.snapshot_download({repository!r}, local_files_only=True))
for name in {names!r}:
    assert hub.hf_hub_download({repository!r}, name, local_files_only=True)
    assert isinstance(hub.try_to_load_from_cache({repository!r}, name), str)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


class Home:
    """A home directory in which programs run, with the world's store beside it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.directory = world.home
        self.environment = {"HOME": str(world.home), "HF_HOME": str(world.home / "huggingface")}

    @property
    def cache(self) -> Path:
        return self.directory / "huggingface" / "hub"

    def place(self, manifest: Manifest, mode: str = "auto") -> Placed:
        return place_manifest(self.world.context, manifest, link_mode=mode, environment=self.environment)

    def undo(self, manifest: Manifest) -> Placed:
        return undo_manifest(self.world.context, manifest, environment=self.environment)

    def run(self, program: Program, code: str, **environment: str) -> str:
        return said(run(program, code, self.directory, **environment))

    def listed(self, program: Program) -> dict[str, dict[str, list[str]]]:
        said_to_be: tuple[list[str], dict[str, dict[str, list[str]]]] = json.loads(
            self.run(program, LIST, **OFFLINE)
        )
        warnings, repositories = said_to_be
        assert warnings == []
        return repositories

    def keep(self, contents: Mapping[str, bytes], commit: str, name: str = SMALL) -> Manifest:
        manifest = manifest_of(from_hub("model", contents, name, commit), name=f"{name}-{commit[:6]}")
        return self.world.keep(manifest, contents)


@pytest.fixture
def home(world: World) -> Home:
    return Home(world)


def dia(home: Home, tiny: TinyDia) -> Manifest:
    """The recipe's files of both repositories, in the store."""
    model = {name: (tiny.model / name).read_bytes() for name in MODEL_FILES}
    vocoder = {name: (tiny.vocoder / name).read_bytes() for name in VOCODER_FILES}
    manifest = manifest_of(
        from_hub("model", model, MODEL, MODEL_COMMIT), from_hub("vocoder", vocoder, VOCODER, VOCODER_COMMIT)
    )
    return home.world.keep(manifest, model, vocoder)


def add(hub: Hub, files: Mapping[str, bytes], **options: str) -> str:
    return hub.add(SMALL, dict(files), lfs=("*.safetensors",), **options)


@every_hub
@pytest.mark.parametrize("mode", ["auto", "symlink"])
def test_every_client_finds_every_file_without_a_network(
    program: Program, mode: str, home: Home, tiny_dia: TinyDia
) -> None:
    home.place(dia(home, tiny_dia), mode)
    for repository, commit, names in (
        (MODEL, MODEL_COMMIT, MODEL_FILES),
        (VOCODER, VOCODER_COMMIT, VOCODER_FILES),
    ):
        found = home.run(program, LOCAL.format(repository=repository, names=names), **OFFLINE)
        assert Path(found).name == commit
    assert home.listed(program) == {
        MODEL: {MODEL_COMMIT: sorted(MODEL_FILES)},
        VOCODER: {VOCODER_COMMIT: sorted(VOCODER_FILES)},
    }


def test_transformers_speaks_from_what_was_placed(home: Home, tiny_dia: TinyDia) -> None:
    home.place(dia(home, tiny_dia))
    samples, digest = json.loads(home.run(TRANSFORMERS, SPEAK, **OFFLINE).splitlines()[-1])
    assert samples > 0
    assert len(digest) == 64


@every_hub
def test_what_a_client_downloaded_is_there_already(program: Program, home: Home, hub: Hub) -> None:
    commit = add(hub, NEW)
    home.run(program, DOWNLOAD.format(repository=SMALL, revision="main"), HF_ENDPOINT=hub.url)
    before = tree_of(home.cache)
    manifest = home.keep(NEW, commit)
    placed = home.place(manifest)
    assert {each.how for each in placed.files} == {"there already"}
    assert placed.notices == ()
    assert tree_of(home.cache) == before
    assert home.undo(manifest).removed == () if home.world.records.ids() else True
    assert tree_of(home.cache) == before


@every_hub
def test_another_commit_beside_a_downloaded_one_shares_its_blobs(
    program: Program, home: Home, hub: Hub
) -> None:
    old = add(hub, OLD)
    home.run(program, DOWNLOAD.format(repository=SMALL, revision="main"), HF_ENDPOINT=hub.url)
    before = tree_of(home.cache)
    new = add(hub, NEW)
    manifest = home.keep(NEW, new)
    placed = home.place(manifest)
    hows = {each.path: each.how for each in placed.files}
    assert hows["model.safetensors"] == "there already"
    assert hows["config.json"] != "there already"
    assert home.listed(program) == {SMALL: {old: sorted(OLD), new: sorted(NEW)}}
    assert Path(home.run(program, LOCAL.format(repository=SMALL, names=sorted(NEW)), **OFFLINE)).name == new
    home.undo(manifest)
    assert tree_of(home.cache) == before
    assert Path(home.run(program, LOCAL.format(repository=SMALL, names=sorted(OLD)), **OFFLINE)).name == old


@every_hub
def test_a_client_online_fetches_only_what_was_not_placed(program: Program, home: Home, hub: Hub) -> None:
    commit = add(hub, NEW)
    some = {name: data for name, data in NEW.items() if name != "README.md"}
    home.place(home.keep(some, commit))
    home.run(program, DOWNLOAD.format(repository=SMALL, revision="main"), HF_ENDPOINT=hub.url)
    assert hub.bytes_sent("*.safetensors") == 0
    assert hub.bytes_sent("*.json") == 0
    assert home.listed(program) == {SMALL: {commit: sorted(NEW)}}


@every_hub
def test_undo_leaves_what_a_client_made_use_of_since(program: Program, home: Home, hub: Hub) -> None:
    manifest = home.keep(OLD, add(hub, OLD))
    home.place(manifest)
    new = add(hub, NEW)
    home.run(program, DOWNLOAD.format(repository=SMALL, revision="main"), HF_ENDPOINT=hub.url)
    undone = home.undo(manifest)
    assert {path.name for path, _ in undone.left} >= {etag("model.safetensors", OLD["model.safetensors"])}
    assert home.listed(program) == {SMALL: {new: sorted(NEW)}}
    assert Path(home.run(program, LOCAL.format(repository=SMALL, names=sorted(NEW)), **OFFLINE)).name == new


@every_hub
def test_a_client_that_deletes_it_takes_nothing_from_the_store(
    program: Program, home: Home, hub: Hub
) -> None:
    commit = add(hub, NEW)
    manifest = home.keep(NEW, commit)
    home.place(manifest)
    home.run(
        program, f"import huggingface_hub as hub; hub.scan_cache_dir().delete_revisions('{commit}').execute()"
    )
    assert not any((home.cache / "models--lab--small").rglob("*.json"))
    for data in NEW.values():
        assert home.world.store.layout.blob(digest_of(data)).read_bytes() == data
    home.place(manifest)
    assert home.listed(program) == {SMALL: {commit: sorted(NEW)}}


@pytest.mark.parametrize("program", [HUB_1, HUB_2], ids=lambda program: program.name)
def test_the_clients_own_check_finds_nothing_wrong(program: Program, home: Home, hub: Hub) -> None:
    home.place(home.keep(NEW, add(hub, NEW)))
    command = str(python_of(program).with_name("hf"))
    done = run_command(
        [command, "cache", "verify", SMALL, "--fail-on-missing-files", "--fail-on-extra-files"],
        home.directory,
        HF_ENDPOINT=hub.url,
    )
    assert done.returncode == 0, done.stderr


def test_a_list_of_the_whole_repository_is_what_the_client_itself_writes(home: Home, hub: Hub) -> None:
    commit = add(hub, NEW)
    home.run(HUB_2, DOWNLOAD.format(repository=SMALL, revision="main"), HF_ENDPOINT=hub.url)
    path = home.cache / "models--lab--small" / "trees" / f"{commit}.json"
    theirs = path.read_bytes()
    path.unlink()
    manifest = manifest_of(from_hub("model", NEW, SMALL, commit, files="all"))
    home.place(home.world.keep(manifest, NEW))
    assert path.read_bytes() == theirs


@every_hub
def test_a_clients_cache_is_read_file_by_file(program: Program, home: Home, hub: Hub) -> None:
    commit = add(hub, NEW)
    home.run(program, DOWNLOAD.format(repository=SMALL, revision="main"), HF_ENDPOINT=hub.url)
    place = HubPlace(home.cache)
    found = {each.file: each for each in place.entries()}
    assert set(found) == set(NEW)
    for name, data in NEW.items():
        entry = found[name]
        assert (entry.repository, entry.commit, entry.size) == (SMALL, commit, len(data))
        assert entry.expected == etag(name, data)
        assert entry.algorithm == ("sha256" if is_lfs(name) else "git")
    assert list(place.leftovers()) == []


def test_a_client_of_any_age_looks_on_while_files_are_placed(
    home: Home, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment when all is ready under temporary names, nothing in the cache is damage to anybody."""
    home.place(home.keep(OLD, add(hub, OLD)))
    manifest = home.keep(NEW, add(hub, NEW))
    seen = []
    real = Records.add

    def looked_at(self: Records, *arguments: Any) -> None:
        assert list(home.cache.rglob("*.diachunk-tmp"))
        seen.extend([home.listed(HUB_0), home.listed(HUB_2)])
        real(self, *arguments)

    monkeypatch.setattr(Records, "add", looked_at)
    home.place(manifest, "copy")
    assert [sorted(each) for each in seen] == [[SMALL], [SMALL]]
    assert_clean(home.cache)
