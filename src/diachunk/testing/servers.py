"""A real web server for tests and benchmarks: nginx on loopback, and a log that says what was fetched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Self

_MARK_PATH = "/.diachunk-mark"
_STOP_S = 5.0
_START_S = 10.0
_LOG_FIELDS = {
    "method": "$request_method",
    "path": "$uri",
    "status": "$status",
    "body_bytes": "$body_bytes_sent",
    "range": "$http_range",
    "authorization": "$http_authorization",
    "user_agent": "$http_user_agent",
    "client": "$remote_addr",
    "connection": "$connection",
}
_CERTIFICATE_REQUEST = """
[req]
distinguished_name = name
x509_extensions = own
prompt = no
[name]
CN = localhost
[own]
basicConstraints = critical,CA:TRUE
keyUsage = critical,digitalSignature,keyCertSign
subjectKeyIdentifier = hash
subjectAltName = DNS:localhost,IP:127.0.0.1
"""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One line of the access log, written when the request ended. Absent headers are "".

    Attributes:
        path: decoded, without the query.
        body_bytes: bytes of the body that nginx gave to the socket.
        connection: the serial number of the TCP connection.
    """

    method: str
    path: str
    status: int
    body_bytes: int
    range: str
    authorization: str
    user_agent: str
    client: str
    connection: int


class Nginx:
    """Serves the files under `root` on 127.0.0.1, on a free port, until the `with` block ends.

    One worker, sendfile, keep-alive, Range: what an origin is. `stop()` and `start()` keep the port, so a
    test can take an origin away and bring it back.

    Args:
        root: the directory to serve.
        rate_bps: bytes a second for each request (nginx allows about a second's worth at once at the start).
        tls: serve https with a certificate for localhost and 127.0.0.1 that `cafile` verifies.
        basic_auth: (user, password) that every request must bring.
        redirect_to: a base URL: `/r/PATH` answers 302 to `BASE/PATH`.
        ranges: False answers 200 with the whole file to a Range request.

    Raises:
        RuntimeError: nginx is not installed, or did not start (its own words are in the message).
    """

    def __init__(
        self,
        root: Path,
        *,
        rate_bps: int | None = None,
        tls: bool = False,
        basic_auth: tuple[str, str] | None = None,
        redirect_to: str | None = None,
        ranges: bool = True,
    ) -> None:
        self._binary = _nginx_binary()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="diachunk-nginx-"))
        self._tls = tls
        self.port = 0
        try:
            if tls:
                _make_certificate(self._directory)
            if basic_auth is not None:
                _make_password_file(self._directory / "htpasswd", *basic_auth)
            self._server = _server_directives(
                root.resolve(),
                self._directory,
                rate_bps=rate_bps,
                tls=tls,
                auth=basic_auth is not None,
                redirect_to=redirect_to,
                ranges=ranges,
            )
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def cafile(self) -> Path | None:
        """The certificate to trust, in PEM; None without TLS."""
        return self._directory / "cert.pem" if self._tls else None

    def requests(self) -> list[LoggedRequest]:
        """Every request that has ended so far, in the order in which they ended."""
        if self._process is not None:
            self._mark()
        log = self._directory / "access.log"
        return [_logged(line) for line in log.read_text("utf-8").splitlines()] if log.exists() else []

    def bytes_sent(self) -> int:
        """Bytes of all bodies given to sockets, in requests that have ended."""
        return sum(request.body_bytes for request in self.requests())

    def start(self) -> None:
        """Listens again, on the same port; does nothing if it runs."""
        if self._process is not None:
            return
        # nginx inherits the socket (as in its own binary upgrade): no race for the port, no waiting for it
        with socket.create_server(("127.0.0.1", self.port), backlog=511) as listener:
            self.port = listener.getsockname()[1]
            conf = self._directory / "nginx.conf"
            conf.write_text(_configuration(self._directory, f"127.0.0.1:{self.port}", self._server), "utf-8")
            errors = self._directory / "error.log"
            self._process = subprocess.Popen(
                [self._binary, "-p", self._directory, "-c", conf, "-e", errors],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "NGINX": f"{listener.fileno()};"},
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        try:
            self._mark()
        except (OSError, HTTPException) as error:
            self.stop()
            said = errors.read_text("utf-8", "replace") if errors.exists() else ""
            raise RuntimeError(f"nginx did not start: {said.strip() or error}") from error

    def stop(self) -> None:
        """Breaks every connection off and refuses new ones; does nothing if it is stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def close(self) -> None:
        """Stops, and removes its temporary files."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _mark(self) -> None:
        """One unlogged request. The only worker has logged what ended before it answers this."""
        connection: HTTPConnection
        if self._tls:
            context = ssl.create_default_context(cafile=self.cafile)
            connection = HTTPSConnection("127.0.0.1", self.port, timeout=_START_S, context=context)
        else:
            connection = HTTPConnection("127.0.0.1", self.port, timeout=_START_S)
        try:
            connection.request("GET", _MARK_PATH)
            connection.getresponse().read()
        finally:
            connection.close()


def _nginx_binary() -> str:
    search = os.pathsep.join(
        [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"]
    )
    binary = shutil.which("nginx", path=search)
    if binary is None:
        raise RuntimeError("nginx is needed for this: apt-get install nginx-light")
    return binary


def _configuration(directory: Path, address: str, server: Sequence[str]) -> str:
    log_format = json.dumps(_LOG_FIELDS)
    # each of these has a compiled-in place that only root can write
    temporary = [f"{kind}_temp_path {directory}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi")]
    http = [
        f"log_format fetched escape=json '{log_format}';",
        f"access_log {directory}/access.log fetched;",
        f"client_body_temp_path {directory}/body;",
        *temporary,
        "default_type application/octet-stream;",
        "sendfile on;",
        "keepalive_requests 1000000;",
        "lingering_close off;",
        f"server {{ listen {address}{server[0]}; {' '.join(server[1:])} }}",
    ]
    top = [
        *(["user root;"] if os.geteuid() == 0 else []),
        "daemon off;",
        "worker_processes 1;",
        f"pid {directory}/nginx.pid;",
        "events { worker_connections 4096; }",
        f"http {{ {chr(10).join(http)} }}",
    ]
    return "\n".join(top) + "\n"


def _server_directives(
    root: Path,
    directory: Path,
    *,
    rate_bps: int | None,
    tls: bool,
    auth: bool,
    redirect_to: str | None,
    ranges: bool,
) -> list[str]:
    """The server block; the first item is what follows the address in `listen`."""
    lines = [" ssl" if tls else "", f'root "{root}";']
    if tls:
        lines += [f"ssl_certificate {directory}/cert.pem;", f"ssl_certificate_key {directory}/key.pem;"]
    if rate_bps is not None:
        lines.append(f"limit_rate {rate_bps};")
    if not ranges:
        lines.append("max_ranges 0;")
    if auth:
        lines += ['auth_basic "test";', f"auth_basic_user_file {directory}/htpasswd;"]
    if redirect_to is not None:
        lines.append(f'location /r/ {{ rewrite "^/r/(.*)$" "{redirect_to.rstrip("/")}/$1" redirect; }}')
    lines.append(f"location = {_MARK_PATH} {{ access_log off; auth_basic off; return 204; }}")
    return lines


def _logged(line: str) -> LoggedRequest:
    values = json.loads(line)
    for name in ("status", "body_bytes", "connection"):
        values[name] = int(values[name])
    return LoggedRequest(**values)


def _make_certificate(directory: Path) -> None:
    """A self-signed certificate that also Python's strict checks (VERIFY_X509_STRICT) take as its own CA."""
    request = directory / "request.cnf"
    request.write_text(_CERTIFICATE_REQUEST, "ascii")
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem", "-config", f"{request}"]
    subprocess.run(command, check=True, capture_output=True)


def _make_password_file(path: Path, user: str, password: str) -> None:
    command = ["openssl", "passwd", "-apr1", "-stdin"]
    hashed = subprocess.run(command, input=password, text=True, check=True, capture_output=True).stdout
    path.write_text(f"{user}:{hashed}", "utf-8")
