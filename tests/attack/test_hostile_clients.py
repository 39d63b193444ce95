"""Clients that mean harm: the node refuses them, keeps serving the others, and its memory stays bounded."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from diachunk.digest import digest_of
from diachunk.limits import Limits, MiB
from diachunk.node.guard import Guard, Near, parse_cidrs, parse_ip
from diachunk.node.serving import door, replies
from diachunk.sources.secret import Secret
from diachunk.store.store import Store
from fixtures.served import Served, until
from store_files import DATA, DIGEST, PIECES, keep, manifest_of

BLOB = f"/v1/blobs/{DIGEST.hex()}"
LARGE = tuple(bytes([number]) * (4 * MiB) for number in range(6))
LARGE_BLOB = f"/v1/blobs/{digest_of(b''.join(LARGE)).hex()}"
QUICK = Limits(stall_s=2.0, node_connections_max=64)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(tmp_path_factory.mktemp("hostile") / "store")
    files = {"model/a.bin": PIECES, "model/large.bin": LARGE}
    keep(store, manifest_of("lab/target", files), files)
    return store


@pytest.fixture
def node(store: Store) -> Iterator[Served]:
    with Served(store, limits=QUICK) as served:
        yield served


@pytest.fixture
def patient_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "ARRIVES_S", 0.3)
    monkeypatch.setattr(replies, "ARRIVES_S", 0.3)


@contextlib.contextmanager
def connection(node: Served, source: str = "127.0.0.1", receive_bytes: int = 0) -> Iterator[socket.socket]:
    with socket.socket() as one:
        if receive_bytes:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        one.bind((source, 0))
        one.settimeout(15)
        one.connect(("127.0.0.1", node.port))
        yield one


def request(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def drain(one: socket.socket) -> bytes:
    """All that comes until the other end closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := one.recv(65536):
            found += data
    return found


def is_well(node: Served, source: str = "127.0.0.9") -> bool:
    """Somebody else gets what he asks for."""
    return node.ask(BLOB, source=source)[2] == DATA


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- readers ----------------------------------------------------------------------------------------------------


def test_readers_that_do_not_read_lose_their_slots_and_then_their_connections(node: Served) -> None:
    with contextlib.ExitStack() as stack:
        still = [stack.enter_context(connection(node, f"127.0.1.{n + 1}", 4096)) for n in range(4)]
        for one in still:
            one.sendall(request(LARGE_BLOB))
        until(lambda: node.call(lambda: node.state.uploads.turns.active) == 4)
        started_at = time.monotonic()
        assert is_well(node)
        assert time.monotonic() - started_at < 5
        until(lambda: node.call(lambda: node.state.uploads.turns.parked) == 0)
        for one in still:
            assert len(drain(one)) < 24 * MiB
    assert node.call(lambda: node.state.uploads.turns.active) == 0


def test_readers_of_a_byte_now_and_then_do_not_hold_up_the_others(node: Served) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connection(node, f"127.0.1.{n + 1}", 4096)) for n in range(4)]
        for one in slow:
            one.sendall(request(LARGE_BLOB))
        until(lambda: node.call(lambda: node.state.uploads.turns.active) == 4)
        for _ in range(8):
            for one in slow:
                one.recv(512)
            assert is_well(node)
            time.sleep(0.05)  # how slow they are: nothing waits for it


def test_those_who_leave_in_the_middle_leave_nothing_behind(node: Served) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        with connection(node, receive_bytes=4096) as one:
            one.sendall(request(LARGE_BLOB))
            one.recv(100)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: node.call(lambda: node.state.uploads.turns.active) == 0)
    until(lambda: node.call(lambda: node.state.metrics.connections) == 0)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)


# --- connections ------------------------------------------------------------------------------------------------


def test_one_address_cannot_take_all_connections(node: Served) -> None:
    with contextlib.ExitStack() as stack:
        mine = [stack.enter_context(connection(node)) for _ in range(60)]
        until(lambda: node.call(lambda: node.state.metrics.connections) == 8)
        refused = [drain(one) for one in mine[8:]]
        assert all(text.startswith(b"HTTP/1.1 503 ") and b"Retry-After" in text for text in refused)
        assert is_well(node)


def test_hundreds_of_connections_are_bounded_and_leave_room_when_they_go(node: Served) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:
        for number in range(500):
            stack.enter_context(connection(node, f"127.0.2.{number % 100 + 1}"))
        until(lambda: node.call(lambda: node.state.metrics.connections) == QUICK.node_connections_max)
        # One at each end of those that were let in, and this end of those that were not.
        until(lambda: len(os.listdir("/proc/self/fd")) < before + 500 + 2 * QUICK.node_connections_max)
    until(lambda: node.call(lambda: node.state.metrics.connections) == 0)
    assert is_well(node)


@pytest.mark.usefixtures("patient_for_less")
def test_idle_and_slow_headers_are_cut(node: Served) -> None:
    with connection(node) as idle, connection(node) as slow, connection(node) as used:
        used.sendall(request("/v1/node"))
        assert b"200 OK" in used.recv(65536)
        started_at = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in request("/v1/node", "X: " + "y" * 300):
                slow.sendall(bytes([byte]))
                time.sleep(0.02)  # how slow it is: nothing waits for it
        assert drain(idle) == b""
        assert time.monotonic() - started_at < 5
        used.sendall(b"GET /v1/no")
        assert drain(used) == b""


# --- requests ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient_for_less")
def test_a_flood_of_headers_is_cut_off(node: Served) -> None:
    for flood in (
        b"GET /v1/node HTTP/1.1\r\n"
        + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 100) for n in range(1000))
        + b"\r\n",
        b"GET /v1/node HTTP/1.1\r\nX: " + b"y" * 100_000,
        b"GET /" + b"y" * 100_000,
        b"\r\n" * 50_000,
    ):
        with connection(node) as one, contextlib.suppress(ConnectionError):
            one.sendall(flood)
            assert b" 200 " not in drain(one)[:64]
    assert is_well(node)


def test_an_endless_header_takes_no_memory(node: Served) -> None:
    before = resident_bytes()
    with connection(node) as one, contextlib.suppress(ConnectionError):
        one.sendall(b"GET /v1/node HTTP/1.1\r\n")
        for number in range(50_000):
            one.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
        pytest.fail("50 MB of headers were taken")
    assert resident_bytes() - before < 32 * MiB


def test_huge_and_endless_bodies_are_refused_without_being_read(node: Served) -> None:
    before = resident_bytes()
    with connection(node) as one:
        one.sendall(request("/v1/have", f"Content-Length: {2**40}", method="POST"))
        assert b" 413 " in one.recv(65536)[:64]
    with connection(node) as one, contextlib.suppress(ConnectionError):
        one.sendall(request("/v1/peers", "Transfer-Encoding: chunked", method="POST"))
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(1600):
            one.sendall(piece)
        pytest.fail("100 MB of body were taken")
    with connection(node) as one, contextlib.suppress(ConnectionError):
        one.sendall(request(BLOB, f"Content-Length: {2**30}"))
        for _ in range(1600):
            one.sendall(b" " * 65536)
        pytest.fail("a body nobody asked for was taken")
    assert resident_bytes() - before < 48 * MiB
    assert is_well(node)


@pytest.mark.usefixtures("patient_for_less")
def test_a_body_that_does_not_come_is_not_waited_for(node: Served) -> None:
    with connection(node) as one:
        one.sendall(request("/v1/have", "Content-Length: 100", method="POST") + b"{")
        assert b" 408 " in one.recv(65536)[:64]


def test_a_compressed_body_is_not_blown_up(node: Served) -> None:
    bomb = zlib.compress(b" " * (256 * MiB), 9)
    before = resident_bytes()
    status = node.ask("/v1/have", method="POST", body=bomb, headers={"Content-Encoding": "deflate"})[0]
    assert status in (400, 413, 415)
    assert resident_bytes() - before < 48 * MiB


def test_thousands_of_requests_at_once_on_one_connection_are_bounded(node: Served) -> None:
    before = resident_bytes()
    with connection(node, receive_bytes=4096) as one, contextlib.suppress(ConnectionError, TimeoutError):
        one.settimeout(2)
        for _ in range(100):
            one.sendall(request("/v1/node") * 1000)
    assert resident_bytes() - before < 64 * MiB
    assert is_well(node)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/have HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/have HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/have HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /v1/node HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /v1/node HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"CONNECT 10.0.0.1:22 HTTP/1.1\r\nHost: 10.0.0.1:22\r\n\r\n",
    ],
)
def test_what_is_no_proper_request_is_refused(node: Served, raw: bytes) -> None:
    with connection(node) as one:
        one.sendall(raw)
        one.shutdown(socket.SHUT_WR)
        assert b" 200 " not in drain(one)[:64]
    assert is_well(node)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/blobs/../../../../etc/passwd",
        "/v1/blobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        f"/v1/blobs/{DIGEST.hex()}/../../store.json",
        f"/v1/blobs/{DIGEST.hex()}%00",
        f"/v1/blobs/{DIGEST.hex().upper()}",
        f"/v1/blobs/{DIGEST.hex()}.stamp",
        f"/v1/chunks/{DIGEST.hex()[:-1]}",
        "/v1/manifests/..%2f..%2fstore",
        "/v1/manifests/%ff/have",
        "/v1/refs/../../store",
        "/v1/refs/%2e%2e/x",
        "/v1/refs/a%00b",
        "/v1/refs/a/b/c",
        "//etc/passwd",
        "/store.json",
        "/.well-known/x",
        "http://10.0.0.1/v1/nothing",
        "/%",
        "/v1/blobs/" + "a" * 7000,
    ],
)
def test_paths_lead_nowhere_but_to_what_is_offered(node: Served, path: str) -> None:
    with connection(node) as one:
        one.sendall(request(path, "Connection: close"))
        head = drain(one)
    assert head.split(b" ")[1] in (b"400", b"404")
    assert b"root:" not in head


# --- who asks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example.com",
        "evil.example.com:8420",
        "localhost.evil.com",
        "a@127.0.0.1.nip.io",
        "127.0.0.1.nip.io",
        "",
    ],
)
def test_a_page_that_rebinds_its_name_to_us_is_refused(node: Served, host: str) -> None:
    assert node.ask("/v1/node", headers={"Host": host})[0] == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:1", "[::1]:8420", "lab-7", "lab-7.local", "10.0.0.7:8420"]
)
def test_this_machines_own_names_are_let_in(node: Served, host: str) -> None:
    assert node.ask("/v1/node", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", "http://127.0.0.1:1", "http://[", "x"]
)
def test_pages_of_other_sites_are_refused(node: Served, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        headers = {"Origin": origin, "Content-Type": "text/plain"}
        status, got, _ = node.ask("/v1/have", method=method, body={"digests": []}, headers=headers)
        assert status == 403
        assert "access-control-allow-origin" not in got


def test_our_own_page_may_ask(node: Served) -> None:
    assert node.ask("/v1/node", headers={"Origin": node.url})[0] == 200


def test_addresses_from_elsewhere_are_refused_before_anything_is_read(store: Store) -> None:
    far = parse_ip("127.0.0.66")
    with Served(store, guard=Guard(near=lambda ip: ip != far)) as node:
        with connection(node, "127.0.0.66") as one:
            text = drain(one)  # nothing was asked yet
        assert text.startswith(b"HTTP/1.1 403 ")
        assert is_well(node)
    allowed = Guard(parse_cidrs(["127.0.0.64/26"]), near=lambda ip: ip != far)
    with Served(store, guard=allowed) as node:
        assert is_well(node, "127.0.0.66")


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:10.1.2.3", True),
        ("::ffff:8.8.8.8", False),
        ("100.64.0.1", True),
        ("100.128.0.1", False),
        ("172.32.0.1", False),
        ("169.254.9.9", True),
        ("fe80::1%eth0", True),
        ("fd12::1", True),
        ("2606:4700::1111", False),
        ("8.8.8.8", False),
    ],
)
def test_which_addresses_are_near(text: str, near: bool) -> None:
    ip = parse_ip(text)
    assert ip is not None
    assert Guard(near=Near(proc_net=Path("/nonexistent"))).admits(ip) is near


def test_a_network_that_a_machine_is_connected_to_is_near(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t0010148D\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0\n"
        "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"
        "broken line\n"
    )
    (tmp_path / "if_inet6").write_text("26000000000000000000000000000001 02 40 00 80 eth0\nbroken\n")
    near = Near(proc_net=tmp_path)
    expected = {
        "141.20.17.1": True,
        "141.20.32.1": False,
        "8.8.8.8": False,
        "2600::5": True,
        "2601::5": False,
    }
    found = {text: near(ip) for text in expected if (ip := parse_ip(text)) is not None}
    assert found == expected


def test_with_a_secret_nothing_is_shown_without_a_proof(store: Store) -> None:
    secret = Secret(b"correct horse battery staple")
    with Served(store, guard=Guard(secret=secret)) as node:
        for path in ("/", "/metrics", "/v1/node", BLOB, "/v1/nothing"):
            assert node.ask(path)[0] == 401
        assert node.ask("/v1/peers", method="POST", body=b"x" * 100)[0] == 401
        bearer = {"Authorization": "Bearer correct horse battery staple"}
        assert node.ask("/v1/node", headers=bearer)[0] == 200
        assert node.ask("/v1/node", headers={"Authorization": "Bearer wrong"})[0] == 401

        def proof(method: str, target: str, port: int, now: float) -> dict[str, str]:
            return {"Authorization": secret.proof(method, target, f"127.0.0.1:{port}", now)}

        now = time.time()
        target = f"{BLOB}?x=%20y"
        assert node.ask(target, headers=proof("GET", target, node.port, now))[0] == 200
        assert node.ask(target, headers=proof("GET", BLOB, node.port, now))[0] == 401
        assert node.ask(target, headers=proof("POST", target, node.port, now))[0] == 401
        assert node.ask(target, headers=proof("GET", target, node.port + 1, now))[0] == 401
        assert node.ask(target, headers=proof("GET", target, node.port, now - 1200))[0] == 401
