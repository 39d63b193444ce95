"""TLS, logins, redirects and proxies: what a plain GET meets between here and an origin."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import diachunk
from diachunk.testing.bad_server import BadServer
from diachunk.testing.faults import Fault, Redirect, Unauthorized
from diachunk.testing.reply import Request
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, assert_same_files, published, tree
from fixtures.forward_proxy import ForwardProxy
from fixtures.watch import failed_fetch, fetch

pytestmark = [pytest.mark.loopback, pytest.mark.usefixtures("quick")]

LOGIN = "Basic " + base64.b64encode(b"ada:s3cret-word").decode()


@pytest.fixture
def netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "netrc"
    login = "login ada password s3cret-word"
    file.write_text(f"machine 127.0.0.1 {login}\nmachine stranger.test {login}\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))


@pytest.fixture
def proxy() -> Iterator[ForwardProxy]:
    with ForwardProxy() as running:
        yield running


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_https_is_fetched_where_its_authority_is_trusted(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with Nginx(small.root, tls=True) as origin:
        monkeypatch.setenv(variable, str(origin.cafile))
        done = fetch(small, origin.url, home=home)
    assert_same_files(done.snapshot.directory, small)


def test_https_is_refused_where_its_authority_is_unknown(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, tls=True) as origin:
        error = failed_fetch(small, origin.url, home=home)
        assert origin.bytes_sent() == 0
    assert f"127.0.0.1:{origin.port}" in error.message
    assert "certificate refused" in error.message


def test_a_certificate_file_that_is_not_there_is_named(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with Nginx(small.root, tls=True) as origin:
        error = failed_fetch(small, origin.url, home=home)
    assert "none.pem" in error.message


@pytest.mark.usefixtures("netrc")
def test_netrc_opens_an_origin_that_wants_a_login(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, basic_auth=("ada", "s3cret-word")) as origin:
        done = fetch(small, origin.url, home=home)
        assert {each.authorization for each in origin.requests()} == {LOGIN}
    assert_same_files(done.snapshot.directory, small)


def test_an_origin_that_wants_a_login_is_named_and_netrc_suggested(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root, basic_auth=("ada", "s3cret-word")) as origin:
        error = failed_fetch(small, origin.url, home=home)
    assert f"127.0.0.1:{origin.port}" in error.message
    assert "netrc" in error.message


@pytest.mark.usefixtures("netrc")
def test_credentials_do_not_follow_a_redirect_to_another_port_or_name(small: Checkpoint, home: Path) -> None:
    with BadServer(small.root) as elsewhere, BadServer(small.root) as named:

        def away(request: Request, number: int) -> Fault:
            return Redirect(f"http://localhost:{elsewhere.port}{request.path}")

        named.script = away
        done = fetch(small, named.url, home=home)
        assert {each.request.headers.get("authorization") for each in named.exchanges} == {LOGIN}
        assert {each.request.headers.get("authorization") for each in elsewhere.exchanges} == {None}
    assert_same_files(done.snapshot.directory, small)


@pytest.mark.usefixtures("netrc")
def test_origins_that_only_the_manifest_names_get_no_credentials(
    small: Checkpoint, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy
) -> None:
    with Nginx(small.root) as named:
        with BadServer(small.root) as stranger:
            # through a proxy, because a private address is refused to what only a manifest names
            url = stranger.url.replace("127.0.0.1", "stranger.test")
            public = published(small.root, origins=[url], out=tmp_path / "public.json")
            monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
            monkeypatch.setenv("no_proxy", f"127.0.0.1:{named.port}")
            fetch(public, named.url, home=home)
            fetched = stranger.exchanges
        assert {each.authorization for each in named.requests()} == {LOGIN}
    assert {each.request.headers.get("authorization") for each in fetched} == {None}


def test_behind_a_proxy_too_a_manifest_cannot_point_inside(
    small: Checkpoint, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy
) -> None:
    inside = ["http://127.0.0.1:1", "http://10.0.0.1", "http://[::1]", "http://localhost", "http://intranet"]
    public = published(small.root, origins=inside, out=tmp_path / "public.json")
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    error = failed_fetch(public, home=home)
    assert proxy.asked == []
    assert error.message.count("private address") == len(inside)


def test_a_host_that_only_a_manifest_names_is_not_even_knocked_at(
    small: Checkpoint, home: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        url = f"http://localhost:{listener.getsockname()[1]}"
        error = failed_fetch(published(small.root, origins=[url], out=tmp_path / "m.json"), home=home)
        with pytest.raises(TimeoutError):
            listener.accept()
    assert "private address" in error.message


def test_the_host_that_the_manifest_was_fetched_from_is_named_by_that(home: Path, tmp_path: Path) -> None:
    root = tree(tmp_path / "served", {"w.bin": b"weights"})
    with Nginx(tmp_path) as server:
        file = tmp_path / "m.json"
        diachunk.publish([root], name="x", out=file, store=False, origins=[f"{server.url}/served"])
        snapshot = diachunk.fetch(f"{server.url}/m.json", home=home)
    assert snapshot.path("w.bin").read_bytes() == b"weights"


def test_a_redirect_is_resolved_once_a_file(small: Checkpoint, home: Path) -> None:
    with Nginx(small.root) as store, Nginx(small.root, redirect_to=store.url) as front:
        done = fetch(small, f"{front.url}/r", home=home)
        asked = [each.path for each in front.requests()]
        assert {each.path.removeprefix("/r") for each in front.requests()} == {
            each.path for each in store.requests()
        }
        # the first requests for a file may start side by side, before any of them knows
        assert all(asked.count(path) <= 2 for path in asked)
        assert len(store.requests()) > len(asked)
    assert_same_files(done.snapshot.directory, small)


def test_a_resolved_link_that_expires_is_resolved_again(small: Checkpoint, home: Path) -> None:
    with BadServer(small.root) as store, BadServer(small.root) as front:

        def presigned(request: Request, number: int) -> Fault:
            return Redirect(f"{store.url}{request.path}?sig={number}")

        def expiring(request: Request, number: int) -> Fault | None:
            seen = [each for each in store.exchanges if each.request.path == request.path]
            return Unauthorized() if len(seen) >= 2 else None

        front.script, store.script = presigned, expiring
        done = fetch(small, front.url, home=home)
        assert any(each.status == 401 for each in store.exchanges)
    assert_same_files(done.snapshot.directory, small)


def test_a_redirect_to_something_else_than_http_is_refused(small: Checkpoint, home: Path) -> None:
    with BadServer(small.root, lambda request, number: Redirect(f"file://{small.root}")) as origin:
        error = failed_fetch(small, origin.url, home=home)
    assert "redirects to file://" in error.message


def test_a_redirect_from_https_to_plain_http_is_refused(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Nginx(small.root) as plain, Nginx(small.root, tls=True, redirect_to=plain.url) as front:
        monkeypatch.setenv("SSL_CERT_FILE", str(front.cafile))
        error = failed_fetch(small, f"{front.url}/r", home=home)
        assert plain.requests() == []
    assert "redirects from https to plain http" in error.message


def test_http_proxy_of_the_environment_is_used_with_its_login(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy
) -> None:
    monkeypatch.setenv("http_proxy", f"http://eve:pass@{proxy.address}")
    with Nginx(small.root) as origin:
        done = fetch(small, origin.url, home=home)
        assert len(proxy.asked) == len(origin.requests())
    login = "Basic " + base64.b64encode(b"eve:pass").decode()
    assert {(method, given) for method, _, given in proxy.asked} == {("GET", login)}
    assert_same_files(done.snapshot.directory, small)


def test_https_goes_through_a_tunnel_of_the_proxy(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy
) -> None:
    monkeypatch.setenv("https_proxy", f"http://{proxy.address}")
    with Nginx(small.root, tls=True) as origin:
        monkeypatch.setenv("SSL_CERT_FILE", str(origin.cafile))
        done = fetch(small, origin.url, home=home)
    assert {(method, path) for method, path, _ in proxy.asked} == {("CONNECT", f"127.0.0.1:{origin.port}")}
    assert_same_files(done.snapshot.directory, small)


def test_no_proxy_is_honoured(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch, proxy: ForwardProxy
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Nginx(small.root) as origin:
        fetch(small, origin.url, home=home)
    assert proxy.asked == []


def test_a_proxy_that_is_down_is_told_apart_from_the_origin(
    small: Checkpoint, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as gone:
        address = gone.address
    monkeypatch.setenv("http_proxy", f"http://{address}")
    with Nginx(small.root) as origin:
        error = failed_fetch(small, origin.url, home=home)
    assert "the proxy: connection refused" in error.message


def test_a_private_address_that_only_the_manifest_names_is_refused_until_the_user_names_it(
    small: Checkpoint, home: Path, tmp_path: Path
) -> None:
    with Nginx(small.root) as origin:
        pointing = published(small.root, origins=[origin.url], out=tmp_path / "pointing.json")
        error = failed_fetch(pointing, home=home)
        assert "127.0.0.1 is a private address that only the manifest names" in error.message
        assert origin.requests() == []
        done = fetch(pointing, origin.url, home=home)
    assert_same_files(done.snapshot.directory, small)


def test_the_manifest_itself_is_fetched_from_a_url(small: Checkpoint, home: Path, tmp_path: Path) -> None:
    with Nginx(small.root.parent) as site:
        done = fetch(f"{site.url}/{small.manifest_file.name}", f"{site.url}/{small.root.name}", home=home)
    assert_same_files(done.snapshot.directory, small)
