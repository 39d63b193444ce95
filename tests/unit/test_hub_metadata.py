"""What is made of the Hub's answers about a repository: commit, files, digests; which are chosen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from diachunk.errors import ManifestError, TransferIncomplete, UsageError
from diachunk.limits import DEFAULT, Limits
from diachunk.manifest.recipe import HubUpstream
from diachunk.manifest.stated import StatedComponent, StatedFile
from diachunk.sources.hub import Repository, _choose, describe
from diachunk.sources.hub_access import HubAccess, hub_access, hub_url, where
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import always
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part

NAME = "lab/repo"
FILES = {"config.json": b"{}", "model.safetensors": b"x" * 1000, "onnx/model.bin": b"y", "a [b].txt": b"z"}
IMPATIENT = Limits(patience_s=0.5)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Hub() as serving:
        serving.add(NAME, FILES)
        monkeypatch.setenv("HF_ENDPOINT", serving.url)
        yield serving


def described(hub: Hub, **fields: Any) -> StatedComponent:
    return describe("c", HubUpstream(NAME, **fields), HubAccess(hub.url), IMPATIENT)[0]


def test_large_files_are_stated_by_sha256_and_small_ones_by_git_id(hub: Hub) -> None:
    found = {file.path: file for file in described(hub).files}
    assert set(found) == set(FILES)
    for path, file in found.items():
        stated = hub.file(NAME, path)
        assert (file.size, file.component) == (len(FILES[path]), "c")
        assert (file.sha256, file.git) == ((stated.sha256, "") if stated.lfs else ("", stated.git_id))


def test_files_come_in_the_order_of_their_paths_whatever_the_pages(hub: Hub) -> None:
    hub.page_size = 1
    paths = [file.path for file in described(hub).files]
    assert paths == sorted(FILES, key=str.encode)


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, set(FILES)),
        ({"files": ("config.json",)}, {"config.json"}),
        ({"files": ("*.json", "*.bin")}, {"config.json", "onnx/model.bin"}),
        ({"files": ("a [b].txt",)}, {"a [b].txt"}),
        ({"files": ("a [[]b].txt",)}, {"a [b].txt"}),
        ({"files": ("model.?afetensors",)}, {"model.safetensors"}),
        ({"exclude": ("onnx/*", "a *")}, {"config.json", "model.safetensors"}),
        ({"files": ("*",), "exclude": ("*.safetensors", "nothing")}, set(FILES) - {"model.safetensors"}),
    ],
)
def test_names_and_patterns_choose(hub: Hub, fields: dict[str, Any], chosen: set[str]) -> None:
    found = described(hub, **fields)
    assert {file.path for file in found.files} == chosen
    assert (found.upstream.get("files") == "all") == (chosen == set(FILES))


def test_what_is_named_and_not_there_is_told_and_so_is_nothing_at_all(hub: Hub) -> None:
    with pytest.raises(UsageError, match=r"has no 'gone\.\*'"):
        described(hub, files=("config.json", "gone.*"))
    with pytest.raises(UsageError, match="none of the files"):
        described(hub, exclude=("*",))


def test_case_decides_on_every_system(hub: Hub) -> None:
    with pytest.raises(UsageError, match=r"has no .CONFIG\.json"):
        described(hub, files=("CONFIG.json",))


def test_the_commit_is_what_is_recorded(hub: Hub) -> None:
    commit = hub.add(NAME, {"only": b"1"}, revision="v1")
    record = described(hub, revision="v1").upstream
    assert record == {"kind": "hub", "repository": NAME, "commit": commit, "files": "all"}


def test_many_names_of_many_files_are_chosen_in_time() -> None:
    files = tuple(StatedFile("", f"d/{number}.bin", 1, "a" * 64) for number in range(20_000))
    upstream = HubUpstream(
        NAME, files=tuple(f"d/{number}.bin" for number in range(10_000)), exclude=("d/1*",) * 50
    )
    began_s = time.thread_time()
    chosen = _choose(Repository(NAME, "0" * 40, False, files), upstream)
    assert len(chosen) == 10_000 - 1111
    assert time.thread_time() - began_s < 5


# --- answers that are none ------------------------------------------------------------------------------------


def row(**changed: Any) -> dict[str, Any]:
    good = {"type": "file", "path": "a.bin", "size": 3, "oid": "b" * 40}
    return {key: value for key, value in (good | changed).items() if value is not ...}


def answer(hub: Hub, rows: Any) -> None:
    body = json.dumps(rows).encode()
    hub.fail(Part.API, faults.Status(200, {"Content-Type": "application/json"}, body), of="*/tree/*")


def test_the_answer_that_the_bad_ones_change_is_good(hub: Hub) -> None:
    answer(hub, [row(), {"type": "directory", "path": "d", "oid": "c" * 40}])
    assert [file.path for file in described(hub).files] == ["a.bin"]


@pytest.mark.parametrize(
    "rows",
    [
        [row(path="../a")],
        [row(path="/etc/passwd")],
        [row(path="a/../../b")],
        [row(path="")],
        [row(path="a\\b")],
        [row(path="a\x1b[2J")],
        [row(path="a\u202eb")],
        [row(path="x" * 2000)],
        [row(size=-1)],
        [row(size=2**60)],
        [row(size=2**53)],
        [row(size="3")],
        [row(size=True)],
        [row(size=None)],
        [row(size=1e300)],
        [row(oid="b" * 64)],
        [row(oid="B" * 40)],
        [row(oid="../x")],
        [row(oid=None)],
        [row(lfs={"oid": "A" * 64, "size": 3, "pointerSize": 1})],
        [row(lfs={"oid": "a" * 40, "size": 3, "pointerSize": 1})],
        [row(lfs={"oid": None, "size": 3, "pointerSize": 1})],
        [row(lfs={})],
        [row(lfs=[])],
        [row(path=...)],
        [row(size=...)],
        [row(oid=...)],
        [{}],
        [3],
        {"error": "x"},
        "text",
        None,
        [[[]]],
    ],
    ids=repr,
)
def test_what_cannot_be_is_refused_in_one_line(hub: Hub, rows: Any) -> None:
    answer(hub, rows)
    with pytest.raises((ManifestError, TransferIncomplete, UsageError)) as caught:
        described(hub)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600
    assert NAME in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"<html>sign in</html>", b"[" * 100_000])
@pytest.mark.parametrize("of", ["*/tree/*", "*/revision/*"])
def test_an_answer_that_is_no_json_is_told(hub: Hub, body: bytes, of: str) -> None:
    hub.fail(Part.API, faults.Status(200, {"Content-Type": "application/json"}, body), of=of)
    with pytest.raises((TransferIncomplete, ManifestError)) as caught:
        described(hub)
    assert str(caught.value).isprintable()
    assert NAME in caught.value.message


@pytest.mark.parametrize("sha", ["main", "x" * 40, "a" * 39, None, 7, "../" + "a" * 37])
def test_a_commit_that_is_none_is_refused(hub: Hub, sha: Any) -> None:
    body = json.dumps({"id": NAME, "sha": sha, "siblings": []}).encode()
    hub.fail(Part.API, faults.Status(200, {"Content-Type": "application/json"}, body), of="*/revision/*")
    with pytest.raises((ManifestError, TransferIncomplete, UsageError)) as caught:
        described(hub)
    assert str(caught.value).isprintable()


def test_more_files_than_a_manifest_holds_are_not_even_listed(hub: Hub) -> None:
    few = Limits(manifest_files_max=3)
    with pytest.raises(ManifestError, match="more than 3 files"):
        describe("c", HubUpstream(NAME), HubAccess(hub.url), few)


def test_pages_without_end_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page leads to itself."""
    body = json.dumps([row(path=f"{number}") for number in range(100)]).encode()
    here = {
        "Content-Type": "application/json",
        "Link": f'<{hub.url}/api/models/{NAME}/tree/x?again>; rel="next"',
    }
    hub.fail(Part.API, faults.Status(200, here, body), of="*/tree/*")
    with pytest.raises(ManifestError, match="more than 2,000 files"):
        describe("c", HubUpstream(NAME), HubAccess(hub.url), Limits(manifest_files_max=2000))


@pytest.mark.parametrize("code", [400, 418, 500, 502, 503])
def test_other_refusals_are_told_with_their_status(hub: Hub, code: int) -> None:
    hub.fail(Part.API, faults.Status(code))
    with pytest.raises(TransferIncomplete) as caught:
        describe("c", HubUpstream(NAME), HubAccess(hub.url), IMPATIENT)
    assert str(code) in caught.value.message


def test_nobody_there_is_told(hub: Hub) -> None:
    hub.close()
    with pytest.raises(TransferIncomplete, match="refused"):
        describe("c", HubUpstream(NAME), HubAccess(hub.url), DEFAULT)


def asked(endpoint: str) -> TransferIncomplete:
    huggingface_hub.close_session()  # it keeps its proxies as long as its connections
    try:
        with pytest.raises(TransferIncomplete) as caught:
            describe("c", HubUpstream(NAME), HubAccess(endpoint), IMPATIENT)
    finally:
        huggingface_hub.close_session()  # and this one would be whoever comes next's
    assert NAME in caught.value.message
    return caught.value


def test_a_login_page_in_the_hubs_place_is_told_as_one(hub: Hub) -> None:
    hub.fail(Part.API, faults.Html())
    error = asked(hub.url)
    assert "a login page? a captive portal?" in error.message
    assert "browser" in error.hint


def test_what_keeps_the_hub_away_is_told_in_the_words_for_origins(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "host name not found" in asked("http://host.invalid").message
    assert "TLS failed: " in asked(hub.url.replace("http:", "https:")).message
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    assert "cannot use a SOCKS proxy" in asked("https://host.example").message


@pytest.mark.parametrize("named", ["https", "all"])
def test_a_proxy_in_front_of_the_hub_is_named_as_what_is_at_fault(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    for name in ("https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(f"{named}_proxy", "http://127.0.0.1:9")
    assert "the proxy: connection refused" in asked("https://host.example").message
    with BadServer(Path(os.devnull), always(faults.Status(407))) as strict:
        monkeypatch.setenv(f"{named}_proxy", strict.url)
        assert "the proxy: 407" in asked("https://host.example").message


# --- how the Hub is reached -----------------------------------------------------------------------------------


def test_the_endpoint_is_the_users_and_the_public_one_if_none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.test/hf/")
    assert hub_access().endpoint == "https://mirror.test/hf"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("HF_ENDPOINT")
        else:
            monkeypatch.setenv("HF_ENDPOINT", unset)
        assert hub_access().endpoint == "https://huggingface.co"


def test_the_token_is_the_environments_and_is_asked_for_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_one\n")
    assert hub_access().authorization() == "Bearer hf_one"
    monkeypatch.setenv("HF_TOKEN", "hf_two words")
    access = hub_access()
    with pytest.raises(UsageError) as caught:
        access.authorization()
    assert "hf_two" not in str(caught.value)


def test_a_path_of_the_hubs_host_cannot_be_named_by_way_of_a_repository() -> None:
    assert hub_url("http://h", "a/b", "../../x") == "http://h/a/b/resolve/..%2F..%2Fx"


@pytest.mark.parametrize(
    "upstream", [{}, {"kind": "hub"}, {"kind": "url", "url": 3}, {"kind": "other"}, {"kind": 1}]
)
def test_an_upstream_that_names_nothing_is_said_as_nothing(upstream: dict[str, Any]) -> None:
    assert where(upstream, HubAccess("http://h")) == ""
