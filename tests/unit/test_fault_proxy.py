"""The fault proxy does to a connection what its line says, no more, and the same again for the same seed."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from diachunk.testing.bad_server import refused_port
from diachunk.testing.fault_proxy import FaultProxy
from diachunk.testing.lines import DEAD, GOOD, SILENT, Break, How, Line, flapping

DATA = bytes(range(256)) * 4096
"""1 MiB in which every byte says where it belongs, nearly."""


class _Handler(socketserver.StreamRequestHandler):
    """Answers `give N` with N bytes of DATA, `take N` and N bytes with `ok`, until the client is done."""

    def handle(self) -> None:
        try:
            while words := self.rfile.readline().split():
                count = int(words[1])
                if words[0] == b"give":
                    self.wfile.write(DATA[:count])
                else:
                    got = self.rfile.read(count)
                    self.wfile.write(b"ok" if got == DATA[:count] else b"no")
            self.wfile.write(b"bye")
        except OSError:
            return


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100


@pytest.fixture
def url() -> Iterator[str]:
    """A server that gives and takes bytes."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/some/path"
        server.shutdown()
        thread.join()


def connect(proxy: FaultProxy, timeout_s: float = 20.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout_s)


def receive(client: socket.socket, count: int) -> bytes:
    """So many bytes, or what came before the end."""
    got = b""
    while len(got) < count and (data := client.recv(count - len(got))):
        got += data
    return got


def given_before_the_break(proxy: FaultProxy, count: int = len(DATA)) -> int:
    """How many bytes come on a new connection before it is broken."""
    with connect(proxy) as client:
        got = 0
        try:
            client.sendall(b"give %d\n" % count)
            while data := client.recv(65536):
                got += len(data)
        except ConnectionError:
            pass
    return got


def is_reset(client: socket.socket) -> bool:
    """Whether this connection ends in a reset, within the client's timeout."""
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        return True
    return False


def is_reset_at_once(proxy: FaultProxy) -> bool:
    try:
        with connect(proxy) as client:
            return is_reset(client)
    except ConnectionResetError:
        return True  # even before connect returned


def test_bytes_pass_unchanged_both_ways_and_are_counted(url: str) -> None:
    with FaultProxy(url) as proxy, connect(proxy) as client:
        client.sendall(b"give %d\n" % len(DATA))
        assert receive(client, len(DATA)) == DATA
        client.sendall(b"take %d\n" % len(DATA) + DATA)
        assert receive(client, 2) == b"ok"
        assert proxy.down_bytes == len(DATA) + 2
        assert proxy.up_bytes == 2 * len(b"give 1048576\n") + len(DATA)
        assert (proxy.accepted, proxy.broken) == (1, 0)


def test_one_side_may_end_before_the_other(url: str) -> None:
    with FaultProxy(url) as proxy, connect(proxy) as client:
        client.sendall(b"give 1000\n")
        client.shutdown(socket.SHUT_WR)
        assert receive(client, 2000) == DATA[:1000] + b"bye"


def test_its_url_is_the_servers_with_another_address(url: str) -> None:
    with FaultProxy(url.replace("http:", "https:")) as proxy:
        assert proxy.url == f"https://127.0.0.1:{proxy.port}/some/path"


def test_a_cap_is_shared_by_all_connections_and_is_one_ways(url: str) -> None:
    with FaultProxy(url, Line(down_bps=1_000_000)) as proxy, connect(proxy) as one, connect(proxy) as two:
        one.sendall(b"take 1000000\n" + DATA[:1_000_000])
        assert receive(one, 2) == b"ok"
        started_at = time.monotonic()
        for client in (one, two):
            client.sendall(b"give 300000\n")
        for client in (one, two):
            assert receive(client, 300_000) == DATA[:300_000]
        assert 0.55 < time.monotonic() - started_at < 5


def test_a_cap_upwards_slows_what_the_client_sends(url: str) -> None:
    with FaultProxy(url, Line(up_bps=1_000_000)) as proxy, connect(proxy) as client:
        started_at = time.monotonic()
        client.sendall(b"take 400000\n" + DATA[:400_000])
        assert receive(client, 2) == b"ok"
        assert 0.37 < time.monotonic() - started_at < 5


def test_latency_delays_each_way_once_and_costs_no_bandwidth(url: str) -> None:
    with FaultProxy(url, Line(latency_s=0.2)) as proxy, connect(proxy) as client:
        started_at = time.monotonic()
        client.sendall(b"give %d\n" % len(DATA))
        assert receive(client, len(DATA)) == DATA
        assert 0.4 <= time.monotonic() - started_at < 2.5, (
            "sixteen pieces, one after another, would take 3.4 s"
        )


def test_jitter_keeps_the_order(url: str) -> None:
    with FaultProxy(url, Line(jitter_s=0.02), seed=3) as proxy, connect(proxy) as client:
        client.sendall(b"give %d\n" % len(DATA))
        assert receive(client, len(DATA)) == DATA


@pytest.mark.parametrize("how", [How.CLOSE, How.RESET])
def test_a_connection_breaks_where_the_seed_says(url: str, how: How) -> None:
    line = Line(breaks=Break(how, (10_000, 900_000)))

    def carried(seed: int) -> list[int]:
        sizes = []
        with FaultProxy(url, line, seed=seed) as proxy:
            for number in range(1, 5):
                before = proxy.down_bytes
                got = given_before_the_break(proxy)
                sizes.append(proxy.down_bytes - before)
                # the last bytes before a reset may not reach the client
                assert got == sizes[-1] if how is How.CLOSE else got <= sizes[-1]
                assert proxy.broken == number
        return sizes

    sizes = carried(1)
    assert all(10_000 <= size <= 900_000 for size in sizes)
    assert len(set(sizes)) == len(sizes)
    assert carried(1) == sizes
    assert carried(2) != sizes


def test_a_reset_is_a_reset_and_a_close_is_none(url: str) -> None:
    with FaultProxy(url, Line(breaks=Break(How.RESET, (1000, 1000)))) as proxy, connect(proxy) as client:
        client.sendall(b"give 5000\n")
        assert is_reset(client)
    with FaultProxy(url, Line(breaks=Break(How.CLOSE, (1000, 1000)))) as proxy, connect(proxy) as client:
        client.sendall(b"give 5000\n")
        assert not is_reset(client)


def test_a_hung_connection_stays_open_and_goes_on_when_the_line_is_good_again(url: str) -> None:
    with FaultProxy(url, Line(breaks=Break(How.HANG, (1000, 1000)))) as proxy, connect(proxy, 0.3) as client:
        client.sendall(b"give 5000\n")
        assert receive(client, 1000) == DATA[:1000]
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert proxy.broken == 1
        client.settimeout(20)
        proxy.line = GOOD
        assert receive(client, 4000) == DATA[1000:5000]


def test_a_silent_line_carries_nothing_upwards_either(url: str) -> None:
    with FaultProxy(url, SILENT) as proxy, connect(proxy, 0.3) as client:
        client.sendall(b"give 5\n")
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert (proxy.up_bytes, proxy.down_bytes) == (0, 0)
        client.settimeout(20)
        proxy.line = GOOD
        assert receive(client, 5) == DATA[:5]


def test_a_line_that_dies_takes_idle_connections_with_it_and_new_ones(url: str) -> None:
    with FaultProxy(url) as proxy, connect(proxy) as idle:
        idle.sendall(b"give 5\n")
        receive(idle, 5)
        proxy.line = DEAD
        assert is_reset(idle)
        assert is_reset_at_once(proxy)
        proxy.line = GOOD
        with connect(proxy) as client:
            client.sendall(b"give 5\n")
            assert receive(client, 5) == DATA[:5]


def test_flapping_takes_turns() -> None:
    script = flapping(GOOD, DEAD, alive_s=1.0, dead_s=2.0)
    assert [script(at) for at in (0.0, 0.9, 1.1, 2.9, 3.1)] == [GOOD, GOOD, DEAD, DEAD, GOOD]


def test_a_server_that_is_not_there_is_a_reset() -> None:
    with FaultProxy(f"http://127.0.0.1:{refused_port()}") as proxy:
        assert is_reset_at_once(proxy)


def test_closing_ends_every_connection_and_leaves_no_thread(url: str) -> None:
    proxy = FaultProxy(url, SILENT)
    with connect(proxy) as client:
        client.sendall(b"give 5\n")
        proxy.close()
        proxy.close()
        assert is_reset(client)
    assert not [each for each in threading.enumerate() if each.name == f"fault-proxy-{proxy.port}"]
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
