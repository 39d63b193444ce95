"""P2, P4, P9, P10: what a node says of itself and of others, to programs and to people."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import diachunk
from diachunk.digest import Digest, digest_of
from diachunk.manifest import Manifest
from diachunk.node.model import Address, Want
from diachunk.store.layout import Layout
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import DATA, DIGEST, PIECES, keep, manifest_of

ME = {"port": 8420, "node": "0" * 32, "store": "ab" * 8}


class Book:
    """A roster that writes down."""

    count = 7

    def __init__(self) -> None:
        self.heard: list[tuple[str, int | None, str, str, tuple[Want, ...]]] = []

    def announced(self, host: str, port: int | None, node: str, store: str, wants: Sequence[Want]) -> None:
        self.heard.append((host, port, node, store, tuple(wants)))

    def others(self, host: str, manifest_ids: Sequence[Digest]) -> list[tuple[Address, float]]:
        return [(Address(f"10.0.{number}.7", 8420), 3.9) for number in range(100)]


def test_a_node_says_who_it_is_and_what_it_holds(served: Served, manifest: Manifest, store: Store) -> None:
    said = served.json("/v1/node")
    assert (said["diachunk"], said["port"], said["secret"]) == (1, served.port, False)
    assert (said["store"], len(said["node"])) == (store.layout.store_id, 32)
    assert said["manifests"] == [
        {
            "id": manifest.hex_id,
            "name": "lab/thing",
            "revision": "main",
            "total_bytes": manifest.total_bytes,
            "have_bytes": manifest.total_bytes,
            "wanted": False,
        }
    ]
    assert said["uploads"] == {"active": 0, "slots": 4}


def test_a_name_stands_for_its_revisions(served: Served, store: Store, manifest: Manifest) -> None:
    assert served.json("/v1/refs/lab/thing?revision=main")["refs"] == [
        {"revision": "main", "id": manifest.hex_id}
    ]
    assert served.json("/v1/refs/lab%2Fthing")["name"] == "lab/thing"
    assert served.ask("/v1/refs/lab/thing?revision=other")[0] == 404
    assert served.ask("/v1/refs/lab/thing?revision=../x")[0] == 400
    assert served.ask("/v1/refs/lab")[0] == 404


def test_an_announcement_is_passed_on_with_the_address_it_came_from(store: Store, manifest: Manifest) -> None:
    book = Book()
    with Served(store, roster=book) as node:
        want = {"manifest": manifest.hex_id, "components": ["model"], "feeds": True, "taking": [[1, 2]]}
        said = node.json("/v1/peers", method="POST", body={**ME, "host": "8.8.8.8", "wants": [want]})
        assert said["you"] == "127.0.0.1"
        assert len(said["peers"]) == 64
        assert said["peers"][0] == {"host": "10.0.0.7", "port": 8420, "age_s": 3}
        node.json("/v1/peers", method="POST", body={**ME, "port": None, "wants": []})
    wanted = Want(manifest.id, ("model",), True, ((1, 2),))
    assert book.heard == [
        ("127.0.0.1", 8420, ME["node"], ME["store"], (wanted,)),
        ("127.0.0.1", None, ME["node"], ME["store"], ()),
    ]


def test_a_fetch_beside_this_node_speaks_for_it(store: Store, manifest: Manifest) -> None:
    book = Book()
    with Served(store, roster=book) as node:
        want = {"manifest": manifest.hex_id, "components": ["model"], "feeds": True, "taking": [[1, 99]]}
        beside = {**ME, "store": store.layout.store_id, "wants": [want]}
        node.json("/v1/peers", method="POST", body=beside)
        said = node.json(f"/v1/manifests/{manifest.hex_id}/have?since={'0' * 16}:0&wait=1")
        assert (said["wants"], said["feeds"]) == (None, False) or said["taking"] == [[1, 99]]
        told = node.call(lambda: node.state.wants.of(manifest.id))
        assert told == Want(manifest.id, ("model",), True, ((1, 99),))
    assert book.heard == []


@pytest.mark.parametrize(
    "change",
    [
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"port": "8420"},
        {"node": "x" * 32},
        {"node": None},
        {"store": "../../etc"},
        {"wants": {}},
        {"wants": [{}] * 65},
        {"wants": [[]]},
        {"wants": [{"manifest": "x", "components": ["a"], "feeds": True}]},
        {"wants": [{"manifest": "0" * 64, "components": [], "feeds": True}]},
        {"wants": [{"manifest": "0" * 64, "components": ["../a"], "feeds": True}]},
        {"wants": [{"manifest": "0" * 64, "components": ["a"], "feeds": 1}]},
        {"wants": [{"manifest": "0" * 64, "components": ["a"], "feeds": True, "taking": [[-1, 0]]}]},
        {"wants": [{"manifest": "0" * 64, "components": ["a"], "feeds": True, "taking": [[1]]}]},
        {"wants": [{"manifest": "0" * 64, "components": ["a"], "feeds": True, "taking": [[1, 2.5]]}]},
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_an_announcement_that_makes_no_sense_is_refused(store: Store, change: dict[str, object]) -> None:
    book = Book()
    with Served(store, roster=book) as node:
        status, _, data = node.ask("/v1/peers", method="POST", body={**ME, "wants": [], **change})
        assert status == 400
        assert "error" in json.loads(data)
    assert book.heard == []


def test_errors_are_json_and_unknown_paths_404(served: Served) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/blobs/xyz", 400), (f"/v1/blobs/{'A' * 64}", 400)):
        got, headers, data = served.ask(path)
        assert (got, headers["content-type"]) == (status, ["application/json", " charset=utf-8"][0])
        assert list(json.loads(data)) == ["error"]
    got, headers, _ = served.ask("/v1/node", method="DELETE")
    assert (got, headers["allow"]) == (405, "GET,HEAD")


def test_prometheus_reads_the_metrics(served: Served) -> None:
    served.ask(f"/v1/blobs/{DIGEST.hex()}")
    served.ask("/no/such/path")
    text = served.ask("/metrics")[2].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    figures = {sample.name: sample.value for family in families.values() for sample in family.samples}
    assert all(name.startswith("diachunk_") for name in families)
    assert figures["diachunk_uploaded_bytes_total"] == len(DATA)
    assert figures["diachunk_manifests"] == figures["diachunk_manifests_complete"] == 1
    assert figures["diachunk_uploads_active"] == 0
    requests = {
        (sample.labels["kind"], sample.labels["status"]): sample.value
        for sample in families["diachunk_requests"].samples
        if sample.name.endswith("_total")
    }
    assert requests[("blob", "200")] == 1
    assert requests[("other", "404")] == 1
    assert families["diachunk_uploaded_bytes"].type == "counter"


def gauges(served: Served) -> dict[str, float]:
    text = served.ask("/metrics")[2].decode()
    families = text_string_to_metric_families(text)
    return {each.name: each.samples[0].value for each in families if each.type == "gauge"}


def test_the_metrics_tell_how_full_the_disk_is(served: Served) -> None:
    told = gauges(served)
    disk = os.statvfs(served.store.root)
    assert 0 <= told["diachunk_store_free_bytes"] <= disk.f_blocks * disk.f_frsize
    blob = served.store.layout.blob(DIGEST).stat()
    assert told["diachunk_store_bytes"] >= blob.st_blocks * 512 > 0
    assert told["diachunk_store_bytes"] == diachunk.ls(home=served.store.root).disk_bytes


def test_of_a_disk_that_is_gone_or_silent_the_metrics_tell_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    original = served.store.layout.free_bytes

    def hangs(layout: Layout) -> int:
        released.wait(60)
        return original()

    monkeypatch.setattr(Layout, "free_bytes", hangs)
    try:
        started_at = time.monotonic()
        told = gauges(served)
        assert time.monotonic() - started_at < 10
        assert told["diachunk_manifests"] == 1
        assert not [each for each in told if each.startswith("diachunk_store")]
    finally:
        released.set()
    until(lambda: "diachunk_store_free_bytes" in gauges(served))


def test_the_page_is_escaped_and_loads_nothing(served: Served) -> None:
    status, headers, data = served.ask("/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    text = data.decode()
    assert "lab/thing" in text
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text
    _, _, data = served.ask("/", headers={"Host": "x<script>alert(1)"})
    assert b"<script" not in data
    entry = served.state.shelf.manifests()[0]
    entry.name = entry.revision = "<script>"  # no manifest can be called that; the page does not rely on it
    data = served.ask("/")[2]
    assert b"<script" not in data
    assert b"&lt;script" in data


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    keep(store, manifest_of("lab/seen", {"model/a.bin": PIECES}), {"model/a.bin": PIECES})
    store.catalog.add(manifest_of("lab/later", {"model/b.bin": [b"x" * 70_000]}))
    with Served(store) as node:
        command = [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}/profile",
        ]
        shown = subprocess.run([*command, "--dump-dom", node.url], capture_output=True, text=True, timeout=60)
        assert "lab/seen" in shown.stdout
        assert "complete" in shown.stdout
        assert "nothing yet" in shown.stdout
        evil = "--host-resolver-rules=MAP evil.example.com 127.0.0.1"
        rebound = subprocess.run(
            [*command, evil, "--dump-dom", f"http://evil.example.com:{node.port}/v1/node"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "lab/seen" not in rebound.stdout
        assert "not called that" in rebound.stdout


def test_digest_of_nothing_known_is_not_here(served: Served) -> None:
    assert served.ask(f"/v1/blobs/{digest_of(b'?').hex()}")[0] == 404
