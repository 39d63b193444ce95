"""The unmodified Hub clients take the emulated Hub for the real one; so what is tested against it counts."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from fixtures.programs import HUB_0, HUB_1, HUB_2, HUBS, TRANSFORMERS, Program, run, said
from fixtures.tiny_dia import MODEL, MODEL_COMMIT, MODEL_FILES, SPEAK, VOCODER, VOCODER_COMMIT, TinyDia

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]
every_hub = pytest.mark.parametrize("program", HUBS, ids=lambda program: program.name)

_PIECE_BYTES = 10 * 1024 * 1024  # in which the clients write

SNAPSHOT = "import huggingface_hub as hub; print(hub.snapshot_download({repository!r}))"
ERROR = """
import huggingface_hub as hub
try:
    hub.snapshot_download({repository!r}, revision={revision!r})
except Exception as error:
    print(type(error).__name__, *(each.__name__ for each in type(error).__mro__))
"""


def cache_of(home: Path, repository: str) -> Path:
    return home / "huggingface" / "hub" / f"models--{repository.replace('/', '--')}"


@every_hub
def test_a_snapshot_is_downloaded_into_the_cache(
    program: Program, hub: Hub, tiny_dia: TinyDia, tmp_path: Path
) -> None:
    hub.page_size = 4
    snapshot = Path(said(run(program, SNAPSHOT.format(repository=MODEL), tmp_path, HF_ENDPOINT=hub.url)))
    cache = cache_of(tmp_path, MODEL)
    assert snapshot == cache / "snapshots" / MODEL_COMMIT
    assert (cache / "refs" / "main").read_bytes() == MODEL_COMMIT.encode()
    for name in MODEL_FILES:
        stated = hub.file(MODEL, name)
        link = snapshot / name
        assert os.readlink(link) == f"../../blobs/{stated.etag}"
        assert link.read_bytes() == (tiny_dia.model / name).read_bytes()
        assert stat.S_ISREG((cache / "blobs" / stated.etag).lstat().st_mode)
    assert len(list((cache / "blobs").iterdir())) == len(list(snapshot.iterdir())) == len(MODEL_FILES) + 4


@pytest.mark.parametrize("program", [HUB_1, HUB_2], ids=lambda program: program.name)
def test_a_listing_is_kept_of_the_whole_commit(program: Program, hub: Hub, tmp_path: Path) -> None:
    said(run(program, SNAPSHOT.format(repository=VOCODER), tmp_path, HF_ENDPOINT=hub.url))
    listing = json.loads((cache_of(tmp_path, VOCODER) / "trees" / f"{VOCODER_COMMIT}.json").read_text())
    weights, config = hub.file(VOCODER, "model.safetensors"), hub.file(VOCODER, "config.json")
    assert listing["format_version"] == 1
    assert listing["files"]["config.json"] == {"size": config.size_bytes, "blob_id": config.git_id}
    assert listing["files"]["model.safetensors"] == {
        "size": weights.size_bytes,
        "blob_id": weights.git_id,
        "lfs_sha256": weights.sha256,
        "lfs_size": weights.size_bytes,
    }


@every_hub
def test_a_token_goes_to_the_hub_and_not_to_the_second_host(
    program: Program, hub: Hub, tmp_path: Path
) -> None:
    hub.private[VOCODER] = "hf_secret"
    program_says = run(
        program, SNAPSHOT.format(repository=VOCODER), tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN="hf_secret"
    )
    said(program_says)
    asked = {
        (each.server, each.had_authorization) for each in hub.requests if VOCODER in each.path or each.file
    }
    assert asked == {("hub", True), ("cdn", False)}


@every_hub
@pytest.mark.parametrize("case", ["no repository", "private", "gated", "no revision"])
def test_errors_are_told_apart(program: Program, hub: Hub, case: str, tmp_path: Path) -> None:
    hub.gated.add(MODEL)
    hub.private[VOCODER] = "hf_secret"
    repository, revision, expected = {
        "no repository": ("nari-labs/none", None, "RepositoryNotFoundError"),
        "private": (VOCODER, None, "RepositoryNotFoundError"),
        "gated": (MODEL, None, "GatedRepoError"),
        "no revision": (MODEL, "v9", "RevisionNotFoundError"),
    }[case]
    code = ERROR.format(repository=repository, revision=revision)
    assert expected in said(run(program, code, tmp_path, HF_ENDPOINT=hub.url)).split()


@every_hub
def test_a_renamed_repository_is_found(program: Program, hub: Hub, tmp_path: Path) -> None:
    hub.renamed["descript/old"] = VOCODER
    snapshot = Path(
        said(run(program, SNAPSHOT.format(repository="descript/old"), tmp_path, HF_ENDPOINT=hub.url))
    )
    assert snapshot.name == VOCODER_COMMIT
    assert (snapshot / "model.safetensors").is_file()


def test_a_link_that_expires_and_a_limited_rate_are_what_clients_know(hub: Hub, tmp_path: Path) -> None:
    hub.links_expire(after_requests=1)
    hub.rate_limit(1, part=Part.API, of="*/tree/*")
    said(run(HUB_2, SNAPSHOT.format(repository=VOCODER), tmp_path, HF_ENDPOINT=hub.url))
    statuses = [each.status for each in hub.requests if "/tree/" in each.path]
    assert statuses == [429, 200]


@every_hub
def test_a_file_that_was_cut_off_is_resumed(program: Program, hub: Hub, tmp_path: Path) -> None:
    data = bytes(range(256)) * 47_000
    hub.add("org/large", {"weights.pth": data})
    hub.cut_off("weights.pth", after_bytes=11_000_000)
    code = "import huggingface_hub as hub; print(hub.hf_hub_download('org/large', 'weights.pth'))"
    first = run(program, code, tmp_path, HF_ENDPOINT=hub.url)
    if program is HUB_0:  # it gives up, and goes on in its next run; the others do so by themselves
        assert first.returncode != 0
        orphan = (
            cache_of(tmp_path, "org/large")
            / "blobs"
            / f"{hub.file('org/large', 'weights.pth').etag}.incomplete"
        )
        assert orphan.read_bytes() == data[:_PIECE_BYTES]
        first = run(program, code, tmp_path, HF_ENDPOINT=hub.url)
    assert Path(said(first)).read_bytes() == data
    assert [each.range for each in hub.requests if each.server == "cdn"] == [None, f"bytes={_PIECE_BYTES}-"]


def speak(home: Path, **environment: str) -> list[Any]:
    words = said(run(TRANSFORMERS, SPEAK, home, **environment)).splitlines()[-1]
    waveform: list[Any] = json.loads(words)
    return waveform


def test_transformers_speaks_online_and_pulls_the_vocoder_by_itself(hub: Hub, tmp_path: Path) -> None:
    samples, digest = speak(tmp_path, HF_ENDPOINT=hub.url)
    assert samples > 10_000
    assert len(digest) == hashlib.sha256().digest_size * 2
    assert hub.bytes_sent("model.safetensors") == hub.file(VOCODER, "model.safetensors").size_bytes
    unknown = {each.path for each in hub.requests if each.status == 404 and not each.file}
    # what the clients ask for that is not here, and do without
    assert {path for path in unknown if not path.endswith("additional_chat_templates")} <= {
        "/api/agent-harnesses"
    }
