"""A cache that diachunk placed, in the eyes of the real Hub clients."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from diachunk.testing.hub import Hub
from fixtures.programs import HUB_0, HUB_1, HUB_2, HUBS, Program, diachunk, python_of, run, run_command, said
from fixtures.tiny_dia import (
    MODEL,
    MODEL_COMMIT,
    MODEL_FILES,
    VOCODER,
    VOCODER_COMMIT,
    VOCODER_FILES,
    TinyDia,
)

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]
every_hub = pytest.mark.parametrize("program", HUBS, ids=lambda program: program.name)
hubs_that_verify = pytest.mark.parametrize("program", [HUB_1, HUB_2], ids=lambda program: program.name)

FIND = """
import json, os
import huggingface_hub as hub
found = dict()
for repository, commit, names in json.loads(os.environ["WANTED"]):
    for revision in ("main", commit):
        root = hub.snapshot_download(repository, revision=revision, local_files_only=True)
        assert sorted(os.listdir(root)) == sorted(names), os.listdir(root)
        for name in names:
            path = hub.hf_hub_download(repository, name, revision=revision, local_files_only=True)
            assert os.path.samefile(path, os.path.join(root, name))
            assert hub.try_to_load_from_cache(repository, name, revision=revision) == path
scan = hub.scan_cache_dir()
repos = [[r.repo_id, r.nb_files, sorted(ref for v in r.revisions for ref in v.refs)] for r in scan.repos]
print(json.dumps([sorted(repos), [str(each) for each in scan.warnings]]))
"""
WANTED = json.dumps([[MODEL, MODEL_COMMIT, MODEL_FILES], [VOCODER, VOCODER_COMMIT, VOCODER_FILES]])
DOWNLOAD = f"""
import huggingface_hub as hub
hub.snapshot_download("{MODEL}", allow_patterns={MODEL_FILES!r})
hub.snapshot_download("{VOCODER}")
"""
REST = f"""
import os
import huggingface_hub as hub
print(len(os.listdir(hub.snapshot_download("{MODEL}"))))
"""

DELETE = """
import huggingface_hub as hub
scan = hub.scan_cache_dir()
scan.delete_revisions(*[each.commit_hash for repo in scan.repos for each in repo.revisions]).execute()
"""


@pytest.fixture(scope="module")
def placed(tiny_dia: TinyDia, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with both components in its Hub cache. Never written to."""
    home = tmp_path_factory.mktemp("placed")
    with Hub() as hub:
        tiny_dia.put_on(hub)
        said(diachunk(home, "fetch", "dia-1.6b", HF_ENDPOINT=hub.url))
    said(diachunk(home, "place", "dia-1.6b", "--into", "hub"))
    return home


@pytest.fixture
def home(placed: Path, tmp_path: Path) -> Path:
    """A copy, to be written to."""
    return Path(shutil.copytree(placed, tmp_path / "home", symlinks=True))


def cache_of(home: Path, repository: str) -> Path:
    return home / "huggingface" / "hub" / f"models--{repository.replace('/', '--')}"


@every_hub
def test_every_file_is_found_offline(program: Program, placed: Path) -> None:
    repositories, warnings = json.loads(said(run(program, FIND, placed, HF_HUB_OFFLINE="1", WANTED=WANTED)))
    assert repositories == [[VOCODER, 3, ["main"]], [MODEL, 9, ["main"]]]
    # the oldest knows only folders there; the standard's tag is worth one line that few ask for
    assert [each for each in warnings if "CACHEDIR.TAG" not in each or program is not HUB_0] == []


@every_hub
def test_it_is_what_a_client_would_have_written(
    program: Program, placed: Path, hub: Hub, tmp_path: Path
) -> None:
    said(run(program, DOWNLOAD, tmp_path, HF_ENDPOINT=hub.url))
    for repository in (MODEL, VOCODER):
        assert contents(cache_of(placed, repository)) == contents(cache_of(tmp_path, repository))
    if program is not HUB_0:
        ours, theirs = (
            json.loads((cache_of(home, VOCODER) / "trees" / f"{VOCODER_COMMIT}.json").read_text())
            for home in (placed, tmp_path)
        )
        assert ours == theirs


def contents(cache: Path) -> dict[str, str | bytes]:
    """Every file of a repository's cache with its bytes, and every link with where it leads; no lists, no locks."""
    return {
        str(path.relative_to(cache)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for folder in ("blobs", "refs", "snapshots")
        for path in (cache / folder).rglob("*")
        if path.is_symlink() or path.is_file()
    }


@hubs_that_verify
def test_the_clients_own_check_passes(program: Program, placed: Path, hub: Hub) -> None:
    for repository in (MODEL, VOCODER):
        assert f"Verified {len(MODEL_FILES if repository == MODEL else VOCODER_FILES)}" in verify(
            program, placed, hub, repository, expected=0
        )


@hubs_that_verify
def test_the_clients_own_check_sees_a_flipped_byte(program: Program, home: Path, hub: Hub) -> None:
    blob = cache_of(home, VOCODER) / "blobs" / hub.file(VOCODER, "model.safetensors").etag
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    assert "model.safetensors" in verify(program, home, hub, VOCODER, expected=1)


def verify(program: Program, home: Path, hub: Hub, repository: str, expected: int) -> str:
    command = [str(python_of(program).with_name("hf")), "cache", "verify", repository]
    done = run_command(command, home, HF_ENDPOINT=hub.url)
    assert done.returncode == expected, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@every_hub
def test_online_only_the_rest_of_a_repository_is_pulled(program: Program, home: Path, hub: Hub) -> None:
    """What the recipe left out is still found: nothing in the cache says that the repository has no more."""
    count = int(said(run(program, REST, home, HF_ENDPOINT=hub.url)))
    assert count == len(MODEL_FILES) + 4
    pulled = {each.file for each in hub.requests if each.method == "GET" and each.status == 200 and each.file}
    assert pulled == {".gitattributes", "README.md", "pytorch_model.bin", "dia-v1.pth"}


# 0.36 follows a link to its end before it deletes, so symlinks are not for it
@pytest.mark.parametrize(
    ("program", "link_mode"),
    [(HUB_0, "hardlink"), (HUB_1, "hardlink"), (HUB_2, "hardlink"), (HUB_1, "symlink"), (HUB_2, "symlink")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_client_that_deletes_its_cache_leaves_the_store_whole(
    program: Program, link_mode: str, home: Path
) -> None:
    shutil.rmtree(home / "huggingface")
    said(diachunk(home, "verify", "dia-1.6b"))  # the store was copied, so nothing in it counts as verified
    said(diachunk(home, "place", "dia-1.6b", "--into", "hub", "--link-mode", link_mode))
    blob = next((cache_of(home, MODEL) / "blobs").iterdir())
    assert blob.is_symlink() if link_mode == "symlink" else blob.stat().st_nlink == 2
    said(run(program, DELETE, home))
    assert not cache_of(home, MODEL).exists()
    checked = diachunk(home, "verify", "dia-1.6b")
    assert checked.returncode == 0, checked.stderr
    assert "12 files" in checked.stderr
