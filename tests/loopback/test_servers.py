"""The nginx runner: what curl gets from it, and what its log says about that."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from diachunk.testing.bad_server import refused_port
from diachunk.testing.servers import Nginx

pytestmark = pytest.mark.loopback

DATA = bytes(range(256)) * 4000
SIZE = len(DATA)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "with a space"
    directory.mkdir()
    (directory / "file").write_bytes(DATA)
    return directory


def curl(*arguments: str) -> tuple[int, bytes]:
    done = subprocess.run(["curl", "-s", "-m", "20", *arguments], capture_output=True)
    return done.returncode, done.stdout


def test_the_log_says_who_asked_for_what(root: Path) -> None:
    with Nginx(root) as nginx:
        url = nginx.url + "/file"
        assert curl(url) == (0, DATA)
        assert curl("-r", "10-19", "-A", 'a "client"', url) == (0, DATA[10:20])
        curl("-I", url + "?token=1", nginx.url + "/none")
        whole, ranged, head, missing = nginx.requests()
        assert (whole.method, whole.path, whole.status, whole.body_bytes) == ("GET", "/file", 200, SIZE)
        assert (ranged.status, ranged.body_bytes, ranged.range) == (206, 10, "bytes=10-19")
        assert (ranged.user_agent, ranged.client, ranged.authorization) == ('a "client"', "127.0.0.1", "")
        assert (head.method, head.path, head.body_bytes) == ("HEAD", "/file", 0)
        assert (missing.status, missing.connection) == (404, head.connection)
        assert whole.connection != ranged.connection
        assert nginx.bytes_sent() == SIZE + 10


def test_a_request_is_in_the_log_as_soon_as_the_client_has_hung_up(root: Path) -> None:
    with Nginx(root, rate_bps=1000) as nginx:
        for count in range(1, 21):
            with socket.create_connection(("127.0.0.1", nginx.port)) as client:
                client.sendall(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.recv(100).startswith(b"HTTP/1.1 200")
            assert len(nginx.requests()) == count
        assert nginx.bytes_sent() < 20 * SIZE


def test_stop_refuses_and_start_serves_on_the_same_port(root: Path) -> None:
    with Nginx(root) as nginx:
        url = nginx.url + "/file"
        assert curl(url)[0] == 0
        nginx.stop()
        assert curl(url)[0] == 7
        assert len(nginx.requests()) == 1
        nginx.start()
        assert curl(url) == (0, DATA)
        assert nginx.url + "/file" == url
        assert len(nginx.requests()) == 2


def test_stop_breaks_off_what_runs(root: Path) -> None:
    with Nginx(root, rate_bps=1000) as nginx:
        with socket.create_connection(("127.0.0.1", nginx.port)) as client:
            client.sendall(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            nginx.stop()
            received = 0
            while piece := client.recv(65536):
                received += len(piece)
        assert received < SIZE


def test_a_rate_limits_each_request(root: Path) -> None:
    with Nginx(root, rate_bps=700_000) as nginx:
        started_s = time.monotonic()
        assert curl(nginx.url + "/file") == (0, DATA)
        assert 0.3 < time.monotonic() - started_s < 5


def test_tls_is_verified_by_its_cafile_and_by_nothing_else(root: Path) -> None:
    with Nginx(root, tls=True) as nginx:
        assert nginx.url.startswith("https://")
        assert curl(nginx.url + "/file")[0] == 60
        for host in ("127.0.0.1", "localhost"):
            assert curl("--cacert", str(nginx.cafile), f"https://{host}:{nginx.port}/file") == (0, DATA)
        context = ssl.create_default_context(cafile=nginx.cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        with urllib.request.urlopen(nginx.url + "/file", context=context) as response:
            assert response.read() == DATA


def test_basic_auth_is_asked_of_every_request(root: Path) -> None:
    with Nginx(root, basic_auth=("user", "pass word")) as nginx:
        url = nginx.url + "/file"
        curl(url)
        curl("-u", "user:wrong", url)
        assert curl("-u", "user:pass word", url) == (0, DATA)
        log = nginx.requests()
        assert [request.status for request in log] == [401, 401, 200]
        assert log[0].authorization == ""
        assert log[2].authorization.startswith("Basic ")


def test_a_redirect_leads_to_another_server(root: Path) -> None:
    with Nginx(root) as target, Nginx(root, redirect_to=target.url + "/") as nginx:
        assert curl("-L", "-r", "5-9", nginx.url + "/r/file") == (0, DATA[5:10])
        assert [request.status for request in nginx.requests()] == [302]
        assert [request.status for request in target.requests()] == [206]


def test_without_ranges_the_whole_file_comes(root: Path) -> None:
    with Nginx(root, ranges=False) as nginx:
        assert curl("-r", "5-9", nginx.url + "/file") == (0, DATA)
        assert [request.status for request in nginx.requests()] == [200]


def test_nothing_is_left_behind(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with Nginx(root) as nginx:
        process = nginx._process
        assert process is not None
        assert list(temporary.iterdir())
        curl(nginx.url + "/file")
    assert not list(temporary.iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_configuration_that_nginx_refuses_is_reported_in_its_words(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(RuntimeError, match="limit_rate"):
        Nginx(root, rate_bps=-1)
    assert not list(tmp_path.glob("diachunk-nginx-*"))


def test_a_missing_nginx_is_an_error_that_says_how_to_get_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(RuntimeError, match="apt-get install nginx-light"):
        Nginx(root)


def test_many_servers_start_at_once_on_ports_of_their_own(root: Path) -> None:
    ports: list[int] = []

    def run() -> None:
        with Nginx(root) as nginx:
            ports.append(nginx.port)
            assert curl(nginx.url + "/file") == (0, DATA)
            barrier.wait(20)

    barrier = threading.Barrier(6)
    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ports)) == 6
    assert refused_port() not in ports
