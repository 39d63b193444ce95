"""Hostile recipes, hostile Hubs, hostile upstreams in manifests: refused in words, before a byte is asked for."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.errors import DiachunkError, IntegrityError, ManifestError, TransferIncomplete, UsageError
from diachunk.manifest import Manifest, encode
from diachunk.manifest.recipe import parse_recipe
from diachunk.testing import faults
from diachunk.testing.bad_server import BadServer
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from fixtures.checkpoints import blobs_of, published, tree
from fixtures.hub_world import hub_serving, url_recipe
from fuzz.checks import bounded

pytestmark = pytest.mark.usefixtures("quick")

NAME = "lab/repo"
TOKEN = "hf_s3cretTokenOfTheUser"
SHA256 = "a" * 64


# --- recipes --------------------------------------------------------------------------------------------------

HEAD = 'name = "a"\n[[component]]\nhub = "o/r"\n'
BOMBS = {
    "deep array": "x = " + "[" * 150_000,
    "deep inline tables": "x = " + "{a=" * 200_000,
    "deep key": "a." * 200_000 + "b = 1",
    "deep header": "[" + "a." * 200_000 + "b]",
    "deep keys inside": "x = {" + ", ".join(f"{'a.' * 40}k{n} = 1" for n in range(2_000)) + "}",
    "quoted deep key": '"a".' * 100_000 + "b = 1",
    "keys apart by blanks": "a . " * 100_000 + "b = 1",
    "many headers": "".join(f"[t{n}.a.b.c.d.e]\n" for n in range(12_000)),
    "many arrays of tables": "[[component]]\n" * 25_000,
    "many dotted keys": "".join(f"a.b.c.d.k{n} = 1\n" for n in range(12_000)),
    "one long string": 'name = "' + "x" * 150_000 + '"',
    "one long comment": "#" * 150_000,
    "an open string": 'name = """' + "\\\n" * 150_000,
    "quotes": '"' * 150_000,
    "brackets and quotes": '["' * 150_000,
    "commas and quotes": "x = [" + ',"' * 150_000,
    "long word": "a" * 150_000,
    "words and blanks": "a \t" * 120_000,
    "dots": "." * 150_000,
    "a huge number": "x = " + "9" * 900_000,
    "a huge hex number": 'name = "a"\n[[component]]\nurl = "http://h/f"\npath = "f"\nsize = 0x'
    + "f" * 900_000,
    "underscores": "x = 1" + "_1" * 150_000,
    "a float": "x = 1e" + "9" * 900_000,
    "escapes": 'name = "' + "\\u0041" * 60_000 + '"',
    "many patterns": HEAD + "files = [" + '"*a*a*a*a*b", ' * 9_000 + "]",
    "many files": HEAD + "files = [" + '"a", ' * 40_000 + "]",
    "many places": HEAD + "places = [" + '"hub", ' * 40_000 + "]",
    "nul": "\0" * 150_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_recipe_made_to_burst_is_refused_in_bounded_time_and_memory(name: str) -> None:
    data = BOMBS[name].encode()
    recipe, error = bounded(
        lambda: parse_recipe(data), len(data), errors=(ManifestError,), bytes_per_byte=600
    )
    assert recipe is None
    assert error is not None
    assert len(str(error)) < 3_000
    assert str(error).isprintable()


@pytest.mark.parametrize("path", ["../../escaped", "/tmp/escaped", "a/../../b", "C:\\x", ".", "a\x00b"])
def test_paths_that_lead_out_never_reach_a_disk(home: Path, tmp_path: Path, path: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "a"\n[[component]]\nurl = "http://127.0.0.1:9/f"\npath = {json.dumps(path)}\nsize = 1\n'
        f'sha256 = "{SHA256}"\n'
    )
    with pytest.raises(ManifestError):
        diachunk.fetch(recipe, home=home)
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize("size", [2**40, 2**46, 2**52, 2**53 - 1])
def test_a_size_that_no_disk_holds_costs_nothing(home: Path, tmp_path: Path, size: int) -> None:
    """Pieces of it would be names by the gigabyte."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "a"\n[[component]]\nurl = "http://127.0.0.1:9/f"\npath = "f"\nsize = {size}\nsha256 = "{SHA256}"\n'
    )
    diachunk.ls(home=home)  # what only the first call loads

    def fetch() -> None:
        diachunk.fetch(recipe, home=home)

    _, error = bounded(fetch, 0, errors=(ManifestError, diachunk.errors.StoreError), base_bytes=64 << 20)
    assert error is not None
    assert list((home / "drafts").glob("*")) == []


def test_a_recipe_cannot_read_this_machines_files(home: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    recipe = tmp_path / "r.toml"
    for url in (f"file://{tmp_path}/secret", str(tmp_path / "secret")):
        recipe.write_text(
            f'name = "a"\n[[component]]\nurl = "{url}"\npath = "f"\nsize = 6\nsha256 = "{SHA256}"\n'
        )
        with pytest.raises(ManifestError, match="not an http"):
            diachunk.fetch(recipe, home=home)


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://h/x", "//[", "http:///x", "data:,x"])
def test_a_redirect_to_what_is_no_http_is_not_followed(home: Path, tmp_path: Path, to: str) -> None:
    with BadServer(tree(tmp_path / "s", {"f": b"x"}), faults.always(faults.Redirect(to))) as server:
        recipe = url_recipe(tmp_path / "r.toml", server.url, {"f": b"x"})
        with pytest.raises(TransferIncomplete):
            diachunk.fetch(recipe, home=home)


@pytest.mark.parametrize("target", ["a.toml", "./a.toml"])
@pytest.mark.parametrize("what", ["fifo", "directory", "device", "large"])
def test_a_recipe_that_is_no_file_is_not_waited_for(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, what: str
) -> None:
    import os

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.toml"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    elif what == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"#" * (2 << 20))
    with pytest.raises(UsageError, match="no such recipe"):
        diachunk.fetch(target, home=home)


# --- a hostile Hub --------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_serving(monkeypatch, {NAME: {"a.txt": b"a"}}) as serving:
        yield serving


def answer(hub: Hub, rows: list[dict[str, Any]]) -> None:
    body = json.dumps(rows).encode()
    hub.fail(Part.API, faults.Status(200, {"Content-Type": "application/json"}, body), of="*/tree/*")


def row(path: str, size: int = 1, oid: str = "b" * 40) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": size, "oid": oid}


@pytest.mark.parametrize(
    "rows",
    [
        [row("a"), row("a")],
        [row("a"), row("A", oid="c" * 40)],
        [row("stra\u00dfe"), row("STRASSE")],
        [row("a"), row("a/b")],
        [row("../../../escaped")],
        [row(".git/../../x")],
        [row("a", 2**60)],
        [row("a", 2**52)],
        [row(f"{number}", 2**46, f"{number:040x}") for number in range(3)],
        [row(f"{number}", 0) for number in range(100_001)],
    ],
    ids=["twice", "case", "fold", "file and directory", "out", "git", "2^60", "2^52", "sum", "100,001 files"],
)
def test_metadata_that_no_manifest_could_hold_is_refused_before_a_byte_is_asked_for(
    hub: Hub, home: Path, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    answer(hub, rows)
    for call in (
        lambda: diachunk.plan(f"hub:{NAME}", home=home),
        lambda: diachunk.fetch(f"hub:{NAME}", home=home),
    ):
        with pytest.raises(ManifestError) as caught:
            call()
        assert str(caught.value).isprintable()
    assert not [each for each in hub.requests if "/resolve/" in each.path]
    assert list((home / "drafts").glob("*")) == []
    assert not list(tmp_path.rglob("*escaped*"))


def test_a_hub_that_sends_more_than_it_states_fills_no_disk(hub: Hub, home: Path) -> None:
    hub.add(NAME, {"a.bin": bytes(9_000_000)})
    hub.misstate(NAME, "a.bin", size_bytes=10)
    with pytest.raises(TransferIncomplete):
        diachunk.fetch(f"hub:{NAME}", home=home)
    assert sum(each.stat().st_blocks * 512 for each in home.rglob("*") if each.is_file()) < 100_000


def test_a_hub_that_leads_elsewhere_for_the_bytes_learns_no_token(
    hub: Hub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with BadServer(tree(tmp_path / "s", {"f": b"x"})) as elsewhere:
        for host in ("localhost", "127.0.0.1"):
            hub.rules.clear()
            hub.fail(Part.RESOLVE, faults.Redirect(f"http://{host}:{elsewhere.port}/f"))
            with pytest.raises(DiachunkError):
                diachunk.fetch(f"hub:{NAME}", home=home)
        assert elsewhere.exchanges
        assert not [each for each in elsewhere.exchanges if "authorization" in each.request.headers]


def test_bytes_of_the_right_size_and_no_more_right_than_that_are_no_blob(hub: Hub, home: Path) -> None:
    hub.add(NAME, {"a.bin": bytes(100)})
    hub.fail(Part.CDN, faults.Flip(50))
    with pytest.raises(IntegrityError):
        diachunk.fetch(f"hub:{NAME}", home=home)
    assert blobs_of(home) == []


# --- upstreams in manifests -----------------------------------------------------------------------------------


def with_upstream(made: Manifest, tmp_path: Path, upstream: dict[str, Any]) -> Path:
    component = dataclasses.replace(made.components[0], upstream=upstream)
    path = tmp_path / "m.json"
    path.write_bytes(encode(dataclasses.replace(made, components=(component,))))
    return path


@pytest.mark.parametrize(
    "upstream",
    [
        {"kind": "hub", "repository": "../api/whoami-v2", "commit": "x"},
        {"kind": "hub", "repository": "lab/repo/../..", "commit": "0" * 40},
        {"kind": "hub", "repository": "lab/repo", "commit": "../../../api"},
        {"kind": "hub", "repository": "lab/repo?x=", "commit": "0" * 40},
        {"kind": "hub", "repository": "lab/repo", "commit": "a b"},
        {"kind": "hub", "repository": ["lab"], "commit": "0" * 40},
        {"kind": "hub", "repository": "lab/repo"},
        {"kind": "url", "url": "file:///etc/passwd"},
        {"kind": "url", "url": "/etc/passwd"},
        {"kind": "url", "url": "http://[::1"},
        {"kind": "url", "url": "http://u:p@127.0.0.1:1/"},
        {"kind": "url", "url": "http:///x"},
        {"kind": "url", "url": {"deep": ["er"]}},
        {"kind": "url", "url": "http://h/\u0001\u0002"},
        {"kind": ["url"], "url": "http://h"},
        {"kind": "\u0001"},
        {},
    ],
    ids=repr,
)
def test_an_upstream_that_is_none_is_no_origin_and_no_error_of_its_own(
    hub: Hub, home: Path, tmp_path: Path, upstream: dict[str, Any]
) -> None:
    made = published(tree(tmp_path / "tree", {"a.bin": b"a" * 5000})).manifest
    path = with_upstream(made, tmp_path, upstream)
    diachunk.plan(path, home=home)
    with pytest.raises(TransferIncomplete) as caught:
        diachunk.fetch(path, home=home)
    assert str(caught.value).isprintable()
    assert [each for each in hub.requests if each.path.startswith("/api/models")] == []
    assert not [each for each in hub.requests if ".." in each.path]


def test_a_manifests_url_gets_no_token_and_a_private_address_is_not_dialled(
    hub: Hub, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    root = tree(tmp_path / "tree", {"a.bin": b"a" * 5000})
    made = published(root).manifest
    with BadServer(root) as server:
        path = with_upstream(made, tmp_path, {"kind": "url", "url": f"{server.url}/{{path}}"})
        with pytest.raises(TransferIncomplete):
            diachunk.fetch(path, home=home)
        assert server.exchanges == []


def test_an_upstream_that_serves_other_bytes_is_barred_chunk_by_chunk(
    hub: Hub, home: Path, tmp_path: Path
) -> None:
    """The manifest names the user's own Hub as its upstream, for bytes that it does not have."""
    commit = hub.add(NAME, {"a.bin": b"b" * 5000})
    made = published(tree(tmp_path / "tree", {"a.bin": b"a" * 5000})).manifest
    path = with_upstream(made, tmp_path, {"kind": "hub", "repository": NAME, "commit": commit})
    with pytest.raises(TransferIncomplete, match="wrong bytes"):
        diachunk.fetch(path, home=home)
    assert blobs_of(home) == []
    snapshot = diachunk.fetch(path, home=home, origins=[str(tmp_path / "tree")])
    assert snapshot.path("a.bin").read_bytes() == b"a" * 5000
