"""The emulated Hub answers as FACTS say the real one does, and goes wrong where it is told to."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError

from diachunk.testing.faults import Reset
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part

REPO = "org/repo"
CONFIG = b'{"a": 1}\n'
WEIGHTS = hashlib.shake_256(b"weights").digest(300_000)
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "sub/merges.txt": b"a b\n",
    "sub/deep/x.txt": b"",
}
PATHS = sorted(FILES)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILES)
        yield hub


class Client:
    """urllib3 with this Hub's address before each path; waits for at most 20 s."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.pool = urllib3.PoolManager(timeout=20.0, retries=False)

    def __call__(
        self, path: str, method: str = "GET", follow: bool = True, **headers: str
    ) -> urllib3.BaseHTTPResponse:
        url = path if path.startswith("http") else self.hub.url + path
        retries = urllib3.Retry(total=None, connect=0, read=0, redirect=5, status=0, other=0)
        return self.pool.request(method, url, headers=headers, redirect=follow, retries=retries)

    def json(self, path: str, **headers: str) -> Any:
        reply = self(path, "GET", True, **headers)
        assert reply.status == 200
        return reply.json()


@pytest.fixture
def ask(hub: Hub) -> Iterator[Client]:
    client = Client(hub)
    yield client
    client.pool.clear()


def resolve(path: str, revision: str = "main", name: str = REPO) -> str:
    return f"/{name}/resolve/{revision}/{path}"


def code(reply: urllib3.BaseHTTPResponse) -> tuple[int, str | None]:
    return reply.status, reply.headers.get("X-Error-Code")


# What is stated


def test_a_commit_follows_from_name_and_contents(hub: Hub) -> None:
    with Hub() as other:
        assert other.add(REPO, dict(reversed(FILES.items()))) == hub.add(REPO, FILES)
        assert other.add("org/other", FILES) != hub.add(REPO, FILES)
        assert other.add(REPO, FILES | {"config.json": b"{}"}) != hub.add(REPO, FILES)
        assert other.add(REPO, FILES, commit="ab" * 20) == "ab" * 20


def test_info_names_the_commit_and_its_files(hub: Hub, ask: Client) -> None:
    commit = hub.add(REPO, FILES)
    info = ask.json(f"/api/models/{REPO}")
    assert (info["id"], info["sha"]) == (REPO, commit)
    assert info["siblings"] == [{"rfilename": path} for path in PATHS]
    assert ask.json(f"/api/models/{REPO}/revision/{commit}") == info


def test_info_with_blobs_states_sizes_and_digests(ask: Client, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG)
    git = subprocess.run(["git", "hash-object", "config.json"], cwd=tmp_path, capture_output=True, text=True)
    siblings = {
        each.pop("rfilename"): each for each in ask.json(f"/api/models/{REPO}?blobs=true")["siblings"]
    }
    assert siblings["config.json"] == {"size": len(CONFIG), "blobId": git.stdout.strip()}
    lfs = siblings["model.safetensors"]["lfs"]
    assert lfs == {"sha256": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS), "pointerSize": 131}


def test_a_tree_comes_in_pages(hub: Hub, ask: Client) -> None:
    hub.page_size = 2
    entries, url = [], f"/api/models/{REPO}/tree/main?recursive=true&expand=false"
    for _ in range(3):
        reply = ask(url)
        page = reply.json()
        assert len(page) == 2
        entries += page
        link = reply.headers.get("Link", "")
        url = link.partition(">")[0].lstrip("<")
        assert link == (f'<{url}>; rel="next"' if len(entries) < 6 else "")
    files = {each["path"]: each for each in entries if each["type"] == "file"}
    assert sorted(files) == PATHS
    assert [each["path"] for each in entries if each["type"] == "directory"] == ["sub", "sub/deep"]
    assert "lfs" not in files["config.json"]
    lfs = {"oid": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS), "pointerSize": 131}
    assert files["model.safetensors"]["lfs"] == lfs


def test_a_tree_that_is_not_recursive_tells_one_level(ask: Client) -> None:
    def paths(folder: str) -> list[str]:
        return [each["path"] for each in ask.json(f"/api/models/{REPO}/tree/main{folder}")]

    assert paths("") == ["config.json", "model.safetensors", "sub"]
    assert paths("/sub") == ["sub/deep", "sub/merges.txt"]


def test_no_chat_templates_is_entry_not_found(ask: Client) -> None:
    reply = ask(f"/api/models/{REPO}/tree/main/additional_chat_templates?recursive=false")
    assert code(reply) == (404, "EntryNotFound")


# Files


def test_a_small_file_is_served_by_the_hub_under_its_git_id(hub: Hub, ask: Client) -> None:
    commit = hub.add(REPO, FILES)
    for method in ("HEAD", "GET"):
        reply = ask(resolve("config.json"), method)
        assert reply.status == 200
        assert reply.headers["X-Repo-Commit"] == commit
        assert reply.headers["ETag"] == f'"{hub.file(REPO, "config.json").git_id}"'
        assert reply.headers["Content-Length"] == str(len(CONFIG))
    assert reply.data == CONFIG


def test_a_large_file_leads_to_the_second_host(hub: Hub, ask: Client) -> None:
    reply = ask(resolve("model.safetensors"), "HEAD", follow=False)
    assert reply.status == 302
    assert reply.headers["X-Linked-Etag"] == f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert reply.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert reply.headers["X-Repo-Commit"] == hub.add(REPO, FILES)
    assert reply.headers["Location"].startswith(hub.cdn_url)
    followed = ask(reply.headers["Location"])
    assert followed.data == WEIGHTS
    assert hub.file(REPO, "model.safetensors").sha256 not in followed.headers["ETag"]
    assert not [name for name in [*reply.headers, *followed.headers] if name.lower().startswith("x-xet")]


def test_a_small_file_may_be_redirected_as_well(hub: Hub, ask: Client) -> None:
    hub.resolve_cache = True
    commit = hub.add(REPO, FILES)
    reply = ask(resolve("sub/merges.txt"), "HEAD", follow=False)
    assert (reply.status, reply.headers["X-Repo-Commit"]) == (307, commit)
    assert reply.headers["Location"].startswith(f"/api/resolve-cache/models/{REPO}/{commit}/sub/merges.txt?")
    followed = ask(resolve("sub/merges.txt"), Range="bytes=2-")
    assert (followed.status, followed.data) == (206, b"b\n")
    assert followed.headers["ETag"] == f'"{hub.file(REPO, "sub/merges.txt").git_id}"'
    assert [each.file for each in hub.requests] == ["sub/merges.txt"] * 3
    assert ask(resolve("model.safetensors"), "HEAD", follow=False).status == 302


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_ranges_are_honoured(ask: Client, path: str) -> None:
    data = FILES[path]
    reply = ask(resolve(path), Range="bytes=3-6")
    assert (reply.status, reply.data) == (206, data[3:7])
    assert reply.headers["Content-Range"] == f"bytes 3-6/{len(data)}"
    beyond = ask(resolve(path), Range=f"bytes={len(data)}-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")


def test_ranges_can_be_ignored(hub: Hub, ask: Client) -> None:
    hub.ignore_ranges()
    for path in ("config.json", "model.safetensors"):
        reply = ask(resolve(path), Range="bytes=3-6")
        assert (reply.status, reply.data) == (200, FILES[path])
        assert "Accept-Ranges" not in reply.headers


def test_a_file_given_by_its_path_is_the_same(hub: Hub, tmp_path: Path) -> None:
    for name, data in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert hub.add(REPO, {name: tmp_path / name for name in FILES}) == hub.add(REPO, FILES)


def test_what_is_missing_is_named(hub: Hub, ask: Client) -> None:
    entry = ask(resolve("pytorch_model.bin"), "HEAD")
    assert code(entry) == (404, "EntryNotFound")
    assert entry.headers["X-Repo-Commit"] == hub.add(REPO, FILES)
    assert code(ask(resolve("config.json", revision="v9"))) == (404, "RevisionNotFound")
    assert code(ask(f"/api/models/{REPO}/revision/v9")) == (404, "RevisionNotFound")
    assert code(ask("/api/models/org/nothing")) == (404, "RepoNotFound")
    assert code(ask(resolve("config.json", name="org/nothing"))) == (404, "RepoNotFound")
    hub.missing_status = 401
    assert code(ask("/api/models/org/nothing")) == (401, "RepoNotFound")


# Who may


def test_a_private_repository_is_there_for_its_token_alone(hub: Hub, ask: Client) -> None:
    hub.private[REPO] = "hf_own"
    for path in (f"/api/models/{REPO}", resolve("config.json")):
        assert code(ask(path)) == (401, "RepoNotFound")
        assert code(ask(path, Authorization="Bearer hf_other")) == (404, "RepoNotFound")
        assert ask(path, Authorization="Bearer hf_own").status == 200
    assert ask("/api/whoami-v2").status == 401
    assert ask.json("/api/whoami-v2", Authorization="Bearer hf_own")["name"] == "tester"


def test_a_gated_repository_tells_its_files_and_keeps_them(hub: Hub, ask: Client) -> None:
    hub.gated.add(REPO)
    hub.granted.add("hf_granted")
    assert ask.json(f"/api/models/{REPO}")["gated"]
    assert code(ask(resolve("config.json"))) == (401, "GatedRepo")
    assert code(ask(resolve("config.json"), Authorization="Bearer hf_other")) == (403, "GatedRepo")
    assert ask(resolve("config.json"), Authorization="Bearer hf_granted").data == CONFIG


def test_a_renamed_repository_leads_to_its_new_name(hub: Hub, ask: Client) -> None:
    hub.renamed["old/name"] = REPO
    reply = ask("/api/models/old/name/tree/main?recursive=true", follow=False)
    assert (reply.status, reply.headers["Location"]) == (307, f"/api/models/{REPO}/tree/main?recursive=true")
    assert ask(resolve("config.json", name="old/name")).data == CONFIG


def test_a_signed_link_with_a_login_is_refused(hub: Hub, ask: Client) -> None:
    link = ask(resolve("model.safetensors"), follow=False).headers["Location"]
    assert ask(link, Authorization="Bearer hf_any").status == 400
    assert [(each.server, each.had_authorization) for each in hub.requests] == [("hub", False), ("cdn", True)]


# What goes wrong


def test_the_rate_is_limited_so_many_times(hub: Hub, ask: Client) -> None:
    hub.rate_limit(2, retry_after_s=7)
    assert ask(resolve("config.json")).status == 200
    replies = [ask(f"/api/models/{REPO}") for _ in range(3)]
    assert [reply.status for reply in replies] == [429, 429, 200]
    assert replies[0].headers["Retry-After"] == "7"


def test_a_file_is_cut_off_so_many_times(hub: Hub, ask: Client) -> None:
    hub.cut_off("*.safetensors", after_bytes=1000, times=1)
    assert ask(resolve("config.json")).data == CONFIG
    with pytest.raises(HTTPError):
        ask(resolve("model.safetensors"))
    assert ask(resolve("model.safetensors")).data == WEIGHTS
    assert hub.bytes_sent("model.*") == 1000 + len(WEIGHTS)
    assert hub.bytes_sent() == 1000 + len(WEIGHTS) + len(CONFIG)


def test_what_has_no_bytes_uses_no_cut_off_up(hub: Hub, ask: Client) -> None:
    hub.cut_off("*", after_bytes=2)
    assert ask(resolve("config.json"), "HEAD").status == 200
    assert ask(f"/api/models/{REPO}").status == 200
    assert ask(resolve("none.json")).status == 404
    with pytest.raises(HTTPError):
        ask(resolve("config.json"))


def test_damaged_bytes_come_under_the_right_digest(hub: Hub, ask: Client) -> None:
    hub.damage("model.safetensors", at_byte=5000)
    got = ask(resolve("model.safetensors")).data
    assert [at for at in range(len(WEIGHTS)) if got[at] != WEIGHTS[at]] == [5000]
    assert hub.file(REPO, "model.safetensors").etag == hashlib.sha256(WEIGHTS).hexdigest()
    assert ask(resolve("model.safetensors"), Range="bytes=0-4999").data == WEIGHTS[:5000]


def test_damage_counts_where_its_byte_is_sent(hub: Hub, ask: Client) -> None:
    hub.damage("model.safetensors", at_byte=5000, times=1)
    first, second = (
        [ask(resolve("model.safetensors"), Range=each).data for each in ("bytes=0-99", "bytes=4900-5099")]
        for _ in range(2)
    )
    assert first == [WEIGHTS[:100], WEIGHTS[4900:5000] + bytes([WEIGHTS[5000] ^ 255]) + WEIGHTS[5001:5100]]
    assert second == [WEIGHTS[:100], WEIGHTS[4900:5100]]


def test_a_digest_is_misstated_everywhere(hub: Hub, ask: Client) -> None:
    hub.misstate(REPO, "model.safetensors", etag="0" * 64)
    hub.misstate(REPO, "config.json", etag="1" * 40, size_bytes=5)
    tree = {each["path"]: each for each in ask.json(f"/api/models/{REPO}/tree/main")}
    assert tree["model.safetensors"]["lfs"]["oid"] == "0" * 64
    assert (tree["config.json"]["oid"], tree["config.json"]["size"]) == ("1" * 40, 5)
    assert ask(resolve("model.safetensors"), "HEAD", follow=False).headers["X-Linked-Etag"] == f'"{"0" * 64}"'
    assert ask(resolve("config.json")).headers["ETag"] == f'"{"1" * 40}"'
    assert ask(resolve("model.safetensors")).data == WEIGHTS


def test_a_link_expires_and_a_new_one_works(hub: Hub, ask: Client) -> None:
    hub.links_expire(after_requests=2)
    link = ask(resolve("model.safetensors"), follow=False).headers["Location"]
    assert [ask(link).status for _ in range(3)] == [200, 200, 403]
    renewed = ask(resolve("model.safetensors"), follow=False).headers["Location"]
    assert renewed != link
    assert ask(renewed).status == 200


def test_a_link_expires_with_time() -> None:
    now = 0.0
    with Hub(clock=lambda: now) as hub:
        hub.add(REPO, FILES)
        hub.links_expire(after_s=10.0)
        ask = Client(hub)
        link = ask(resolve("model.safetensors"), follow=False).headers["Location"]
        now = 9.9
        assert ask(link).status == 200
        now = 10.0
        assert ask(link).status == 403
        ask.pool.clear()


def test_a_revision_moves_between_requests(hub: Hub, ask: Client) -> None:
    old = hub.add(REPO, FILES)
    new = hub.add(REPO, FILES | {"config.json": b"{}"}, revision="next")
    hub.move(REPO, to=new, after_requests=1)
    assert ask.json(f"/api/models/{REPO}")["sha"] == old
    assert ask(resolve("config.json")).headers["X-Repo-Commit"] == new
    assert ask(resolve("config.json", revision=old)).data == CONFIG


def test_any_fault_can_be_told_to_skip(hub: Hub, ask: Client) -> None:
    hub.fail(Part.RESOLVE, Reset(), of="config.json", times=1, skip=1)
    assert ask(resolve("config.json")).status == 200
    with pytest.raises(HTTPError):
        ask(resolve("config.json"))
    assert ask(resolve("config.json")).status == 200


def test_a_hanging_hub_says_nothing(hub: Hub, ask: Client) -> None:
    hub.hang(Part.API)
    with pytest.raises(ReadTimeoutError):
        ask.pool.request("GET", f"{hub.url}/api/models/{REPO}", timeout=0.2)
    hub.rules.clear()
    assert ask(f"/api/models/{REPO}").status == 200


def test_slow_bytes_are_the_right_ones(hub: Hub, ask: Client) -> None:
    hub.slow_down(2_000_000)
    assert ask(resolve("model.safetensors")).data == WEIGHTS


def test_requests_are_told_in_order(hub: Hub, ask: Client) -> None:
    ask(resolve("config.json"), Range="bytes=0-0", Authorization="Bearer hf_any")
    ask(f"/api/models/{REPO}?blobs=true")
    first, second = hub.requests
    assert (first.server, first.method, first.path) == ("hub", "GET", resolve("config.json"))
    assert (first.range, first.had_authorization, first.status, first.file) == (
        "bytes=0-0",
        True,
        206,
        "config.json",
    )
    assert (second.path, second.query, second.file) == (f"/api/models/{REPO}", "blobs=true", "")


def test_errors_are_json_with_a_message(ask: Client) -> None:
    reply = ask("/api/models/org/nothing")
    assert json.loads(reply.data)["error"] == reply.headers["X-Error-Message"]
