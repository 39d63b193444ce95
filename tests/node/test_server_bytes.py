"""P7, P8 and P3 as curl, b3sum, urllib3 and http.client see them."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import urllib3

from diachunk.digest import digest_of
from diachunk.limits import Limits, MiB
from diachunk.manifest import Manifest, decode
from diachunk.node.serving import sending, uploads
from diachunk.store.adopted import AdoptedFile
from diachunk.store.stamps import Stamp
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import BLOCK, CHUNKS, DATA, DIGEST, PIECES, fill, keep, manifest_of, write

BLOB = f"/v1/blobs/{DIGEST.hex()}"


def test_curl_and_b3sum_agree_on_a_whole_file(served: Served, tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run(["curl", "-sSf", "-o", out, served.url + BLOB], check=True)
    said = subprocess.run(["b3sum", "--no-names", out], check=True, capture_output=True, text=True).stdout
    assert said.strip() == DIGEST.hex()


def test_curl_resumes_where_it_stopped(served: Served, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(DATA[: BLOCK + 7])
    subprocess.run(["curl", "-sSf", "-C", "-", "-o", out, served.url + BLOB], check=True)
    assert out.read_bytes() == DATA


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        (f"bytes={len(DATA) - 1}-", len(DATA) - 1, len(DATA)),
        ("bytes=-5", len(DATA) - 5, len(DATA)),
        (f"bytes=-{len(DATA) * 9}", 0, len(DATA)),
        (f"bytes=100-{len(DATA) * 9}", 100, len(DATA)),
        (f"BYTES={BLOCK - 1}-{BLOCK}", BLOCK - 1, BLOCK + 1),
    ],
)
def test_one_range_is_answered_with_just_these_bytes(
    served: Served, header: str, start: int, end: int
) -> None:
    status, headers, data = served.ask(BLOB, headers={"Range": header})
    assert (status, data) == (206, DATA[start:end])
    assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"


@pytest.mark.parametrize(
    "header",
    ["bytes=0-1,5-6", "bytes=5-4", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0x1-2", "", "bytes=1-2-3"],
)
def test_several_ranges_or_nonsense_are_answered_as_none(served: Served, header: str) -> None:
    status, headers, data = served.ask(BLOB, headers={"Range": header})
    assert (status, data) == (200, DATA)
    assert "content-range" not in headers


@pytest.mark.parametrize("header", [f"bytes={len(DATA)}-", f"bytes={10**17}-{10**17 + 1}", "bytes=-0"])
def test_a_range_past_the_end_is_416_and_says_the_size(served: Served, header: str) -> None:
    status, headers, _ = served.ask(BLOB, headers={"Range": header})
    assert (status, headers["content-range"]) == (416, f"bytes */{len(DATA)}")


def test_nothing_is_conditional_and_nothing_is_compressed(served: Served) -> None:
    asked = {
        "If-Range": '"something"',
        "If-None-Match": "*",
        "If-Modified-Since": "Wed, 21 Oct 2037 07:28:00 GMT",
        "Accept-Encoding": "gzip, br, zstd",
        "Range": "bytes=1-3",
    }
    status, headers, data = served.ask(BLOB, headers=asked)
    assert (status, data) == (206, DATA[1:4])
    assert "content-encoding" not in headers
    assert headers["content-type"] == "application/octet-stream"


def test_head_says_the_size_and_sends_nothing(served: Served) -> None:
    status, headers, data = served.ask(BLOB, method="HEAD")
    assert (status, headers["content-length"], data) == (200, str(len(DATA)), b"")
    status, headers, data = served.ask(BLOB, method="HEAD", headers={"Range": "bytes=0-9"})
    assert (status, headers["content-length"], data) == (206, "10", b"")


def test_one_connection_serves_many_requests(served: Served) -> None:
    with urllib3.HTTPConnectionPool("127.0.0.1", served.port, maxsize=1, block=True) as pool:
        for number in range(20):
            reply = pool.request("GET", BLOB, headers={"Range": f"bytes={number}-{number + BLOCK}"})
            assert reply.data == DATA[number : number + BLOCK + 1]
        assert pool.num_connections == 1


def test_a_chunk_is_served_wherever_it_lies(served: Served) -> None:
    for piece in PIECES:
        assert served.ask(f"/v1/chunks/{digest_of(piece).hex()}")[2] == piece
    assert served.ask(f"/v1/chunks/{digest_of(b'nothing').hex()}")[0] == 404


def test_an_empty_file_is_served(served: Served) -> None:
    status, headers, data = served.ask(f"/v1/blobs/{digest_of(b'').hex()}")
    assert (status, headers["content-length"], data) == (200, "0", b"")


def test_the_text_of_a_manifest_hashes_to_its_id(served: Served, manifest: Manifest) -> None:
    status, headers, data = served.ask(f"/v1/manifests/{manifest.hex_id}")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert decode(data).id == manifest.id


def test_a_file_that_was_changed_since_it_was_verified_is_not_served(served: Served, store: Store) -> None:
    path = store.layout.blob(DIGEST)
    os.chmod(path, 0o644)
    path.write_bytes(b"x" * len(DATA))
    assert served.ask(BLOB)[0] == 404
    shared = digest_of(PIECES[1]).hex()  # it lies in another file as well
    assert until(lambda: served.ask(f"/v1/chunks/{shared}")[0] == 200)
    alone = digest_of(PIECES[0]).hex()
    assert served.ask(f"/v1/chunks/{alone}")[0] == 404


def test_a_range_of_a_partial_is_served_if_all_of_it_is_verified(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.catalog.add(manifest_of("lab/part", {"model/a.bin": PIECES}))
    filled = store.blobs.open_partial(DIGEST, CHUNKS)
    try:
        write(filled, PIECES, [0, 1, 3])
        with Served(store) as node:
            until(lambda: node.ask(BLOB, headers={"Range": f"bytes=5-{2 * BLOCK - 1}"})[0] == 206)
            assert node.ask(BLOB, headers={"Range": f"bytes={3 * BLOCK + 1}-"})[2] == PIECES[3][1:]
            assert node.ask(BLOB, headers={"Range": f"bytes=0-{2 * BLOCK}"})[0] == 404
            assert node.ask(BLOB)[0] == 404
    finally:
        filled.close()


def test_a_missing_chunk_of_a_range_may_lie_in_another_file(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.catalog.add(manifest_of("lab/two", {"model/a.bin": PIECES, "model/b.bin": PIECES[2:3]}))
    fill(store, PIECES[2:3])
    filled = store.blobs.open_partial(DIGEST, CHUNKS)
    try:
        write(filled, PIECES, [0, 1, 3])
        with Served(store) as node:
            until(lambda: node.ask(BLOB)[0] == 200)
            assert node.ask(BLOB)[2] == DATA
            assert (
                node.ask(BLOB, headers={"Range": f"bytes={2 * BLOCK - 3}-{3 * BLOCK + 2}"})[2]
                == (DATA[2 * BLOCK - 3 : 3 * BLOCK + 3])
            )
    finally:
        filled.close()


def test_a_file_in_a_directory_of_the_users_counts_while_its_stamp_matches(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.catalog.add(manifest_of("lab/theirs", {"model/a.bin": PIECES}))
    mine = tmp_path / "mine.bin"
    mine.write_bytes(DATA)
    stamp = Stamp.of(mine.stat()).adding(chunk_list=CHUNKS.id)
    store.blobs.adopted.put(DIGEST, AdoptedFile(mine, stamp))
    with Served(store) as node:
        assert node.ask(BLOB)[2] == DATA
        mine.write_bytes(b"y" * len(DATA))
        assert node.ask(BLOB)[0] == 404


def test_large_files_arrive_whole_under_a_cap(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    pieces = tuple(bytes([number]) * MiB for number in range(4))
    files = {"model/a.bin": pieces}
    keep(store, manifest_of("lab/large", files), files)
    digest = digest_of(b"".join(pieces)).hex()
    with Served(store, max_up_bps=16 * MiB, limits=Limits(stall_s=2.0)) as node:
        assert digest_of(node.ask(f"/v1/blobs/{digest}")[2]).hex() == digest
        assert node.call(lambda: node.state.uploads.sent_bytes) == 4 * MiB


def test_when_all_slots_are_taken_others_wait_and_too_many_are_told_when_to_come_again(
    served: Served,
) -> None:
    turns = served.state.uploads.turns
    others = [f"10.0.0.{number}" for number in range(turns.slots)]
    held = [served.call(partial(turns.ask, address)) for address in others]
    served.call(turns.grant)
    waiting = [served.call(lambda: turns.ask("127.0.0.1")) for _ in range(2)]
    status, headers, _ = served.ask(BLOB)
    assert (status, headers["retry-after"].isdigit()) == (503, True)
    for turn in (*held, *waiting):
        assert turn is not None
        served.call(partial(turns.end, turn))
    assert served.ask(BLOB)[0] == 200


def test_a_slow_reader_keeps_its_slot_as_long_as_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path / "store")
    pieces = tuple(bytes([number]) * (4 * MiB) for number in range(4))
    keep(store, manifest_of("lab/large", {"model/a.bin": pieces}), {"model/a.bin": pieces})
    monkeypatch.setattr(sending, "_LOOK_S", 0.1)
    lost: list[object] = []
    monkeypatch.setattr(uploads.Upload, "stands", lambda self: lost.append(self.address))
    with Served(store) as node, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        reader.connect(("127.0.0.1", node.port))
        path = f"/v1/blobs/{digest_of(b''.join(pieces)).hex()}"
        reader.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got, give_up_at = 0, time.monotonic() + 20
        while got < 8 * MiB and time.monotonic() < give_up_at:
            got += len(reader.recv(64 * 1024))
            time.sleep(0.003)  # how slow it is: nothing waits for it
        assert not lost
        until(lambda: lost)  # and now it does not read any more


def test_closing_does_not_wait_for_those_who_listen(store: Store, manifest: Manifest) -> None:
    node = Served(store)
    said = node.json(f"/v1/manifests/{manifest.hex_id}/have")
    poll = f"/v1/manifests/{manifest.hex_id}/have?since={said['epoch']}:{said['version']}&wait=20"
    heard: list[object] = []
    listener = threading.Thread(target=lambda: heard.append(node.json(poll)))
    listener.start()
    until(lambda: node.call(lambda: node.state.listeners) == 1)
    started_at = time.monotonic()
    node.__exit__()
    listener.join(10)
    assert heard
    assert time.monotonic() - started_at < 5


def test_a_connection_that_ends_early_frees_its_slot(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.request("GET", BLOB)
    connection.close()
    until(lambda: served.call(lambda: served.state.uploads.turns.active) == 0)


def test_a_file_that_is_not_in_memory_is_read_ahead_off_the_loop(
    served: Served, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    ahead = sending._read_ahead

    def noted(fd: int, offset: int, size: int) -> None:
        read.append(size)
        assert threading.current_thread() is not served._thread
        ahead(fd, offset, size)

    monkeypatch.setattr(sending, "_in_memory", lambda fd, offset, size: False)
    monkeypatch.setattr(sending, "_read_ahead", noted)
    assert served.ask(BLOB)[2] == DATA
    assert sum(read) == len(DATA)


def test_where_there_is_no_sendfile_the_bytes_are_copied(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sendfile")
    assert served.ask(BLOB, headers={"Range": "bytes=7-99999"})[2] == DATA[7:100_000]
