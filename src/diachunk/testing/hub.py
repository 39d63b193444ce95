"""An emulated Hub on loopback, for tests: what unmodified Hub clients speak to, with faults on demand.

Two servers: the Hub itself (API, small files, redirects) and a second host on another port, to which LFS files are
redirected by signed links. It never offers Xet. Contents given as a Path are mapped, not read into memory.

    with Hub() as hub:
        commit = hub.add("org/repo", {"config.json": b"{}", "model.safetensors": data})
        hub.cut_off("*.safetensors", after_bytes=1000, times=2)
        run(..., HF_ENDPOINT=hub.url)
    assert all(request.range for request in hub.requests if request.server == "cdn")
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qs, quote, unquote

from diachunk.testing import hub_replies as replies
from diachunk.testing.bad_server import BadServer
from diachunk.testing.hub_faults import Part, Trouble
from diachunk.testing.hub_files import LFS_PATTERNS, Content, HubFile, commit_of, hub_file
from diachunk.testing.hub_state import HubRequest, Links, Move, Repositories, ServerName
from diachunk.testing.reply import Reply, Request

_API = re.compile(
    r"/api/models/(?P<name>.+?)(?:/(?P<verb>revision|tree)/(?P<revision>[^/]+)(?:/(?P<path>.+))?)?"
)
_RESOLVE = re.compile(r"/(?P<name>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_CACHED = re.compile(r"/api/resolve-cache/models/(?P<name>.+?)/(?P<revision>[0-9a-f]{40})/(?P<path>.+)")
_LINK_SECONDS = 3600


@dataclass(slots=True)
class _Turn:
    """Stands between a server and the Hub for one request: the server asks its script for a fault, and applies it."""

    answer: Callable[[Request, _Turn], Reply]
    subject: str = ""

    def apply(self, request: Request, reply: Reply) -> Reply:
        return self.answer(request, self)


class Hub(Trouble):
    """Serves from its construction on, until `close()` or the end of the `with` block.

    Attributes:
        url: what HF_ENDPOINT is set to; `cdn_url` is the second host.
        gated: names of repositories whose files only tokens in `granted` may have.
        private: name -> the token without which the repository is not there.
        granted: tokens that may have the files of gated repositories.
        renamed: old name -> name of today: asked for by the old one, a 307 leads to the new one.
        page_size: entries in one answer of the tree API.
        resolve_cache: small files are redirected too, by 307 to /api/resolve-cache/..., as at the real Hub since 2025.
        missing_status: with which RepoNotFound comes; the real Hub says 401 to who has not logged in.
        links: their lifetime (see `links_expire`).
    """

    def __init__(self, *, page_size: int = 1000, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.gated: set[str] = set()
        self.private: dict[str, str] = {}
        self.granted: set[str] = set()
        self.renamed: dict[str, str] = {}
        self.page_size = page_size
        self.resolve_cache = False
        self.missing_status: Literal[401, 404] = 404
        self.links = Links(clock)
        self._ranges = True
        self._repositories = Repositories()
        self._lock = threading.Lock()
        self._log: list[HubRequest] = []
        nowhere = Path(os.devnull)  # the servers' own files: none, every answer is the Hub's
        self._hub = BadServer(nowhere, lambda request, number: _Turn(self._answer_hub))
        self._cdn = BadServer(nowhere, lambda request, number: _Turn(self._answer_cdn))
        self.url = self._hub.url
        # some clients tell a second host by its name alone, not by its port
        self.cdn_url = f"http://localhost:{self._cdn.port}"

    # What is there

    def add(
        self,
        repository: str,
        files: Mapping[str, Content],
        *,
        lfs: Iterable[str] = LFS_PATTERNS,
        revision: str = "main",
        commit: str | None = None,
    ) -> str:
        """A commit of these files and no others, for which `revision` stands from now on; older ones stay.

        Args:
            lfs: patterns of what is kept in LFS; the rest is kept in git.
            commit: its id, where a test needs a certain one.

        Returns:
            The commit's id: 40 hex digits that follow from name and contents.
        """
        patterns = tuple(lfs)
        made = commit_of(repository, (hub_file(path, data, patterns) for path, data in files.items()), commit)
        self._repositories.add(repository, made, revision)
        return made.id

    def file(self, repository: str, path: str, revision: str = "main") -> HubFile:
        """What is stated about a file.

        Raises:
            KeyError: there is none.
        """
        commit = self._repositories.find(repository, revision)
        if commit is None:
            raise KeyError(f"{repository}@{revision}")
        return commit.files[path]

    # What was asked

    @property
    def requests(self) -> list[HubRequest]:
        """Everything answered so far, of both servers, in order."""
        with self._lock:
            return list(self._log)

    def bytes_sent(self, of: str = "*") -> int:
        """Bytes given to sockets so far in answers about files whose paths match a pattern."""
        return sum(
            exchange.body_bytes
            for server in (self._hub, self._cdn)
            for exchange in server.exchanges
            if isinstance(exchange.fault, _Turn) and exchange.status in (200, 206)
            if exchange.fault.subject and not exchange.fault.subject.startswith("/")
            if fnmatchcase(exchange.fault.subject, of)
        )

    # What goes wrong, beside what Trouble has

    def ignore_ranges(self) -> None:
        """From now on a Range request is answered 200, with the whole file."""
        self._ranges = False

    def links_expire(self, *, after_s: float | None = None, after_requests: int | None = None) -> None:
        """How long a signed link works, those made before too; the Hub makes a new one each time it is asked."""
        self.links.lifetime_s = after_s
        self.links.uses_max = after_requests

    def misstate(
        self, repository: str, path: str, *, etag: str | None = None, size_bytes: int | None = None
    ) -> None:
        """The API and the headers state another sha256 (git id for a small file), or size; the bytes stay right."""

        def change(file: HubFile) -> HubFile:
            if etag is not None:
                file = replace(file, sha256=etag) if file.lfs else replace(file, git_id=etag)
            return file if size_bytes is None else replace(file, size_bytes=size_bytes)

        self._repositories.restate(repository, path, change)

    def move(self, repository: str, *, to: str, revision: str = "main", after_requests: int = 0) -> None:
        """A revision will stand for another commit, after so many more requests that name the repository."""
        self._repositories.plan(repository, Move(revision, to, after_requests))

    def close(self) -> None:
        """Ends every connection and thread; from now on connections are refused. May be called again."""
        self._hub.close()
        self._cdn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # The answers

    def _answer_hub(self, request: Request, turn: _Turn) -> Reply:
        path = request.path.partition("?")[0]
        if path.startswith("/api/") and not _CACHED.fullmatch(path):
            turn.subject = path
            return self._finish("hub", Part.API, request, turn, self._api(request, path))
        return self._finish("hub", Part.RESOLVE, request, turn, self._resolve(request, path, turn))

    def _api(self, request: Request, path: str) -> Reply:
        token = _token(request)
        if path == "/api/whoami-v2":
            known = token in self.granted or token in self.private.values()
            return replies.whoami("tester") if known else replies.error(401, "Invalid username or password.")
        match = _API.fullmatch(path)
        if match is None:
            return replies.error(404, "Sorry, we can't find the page you are looking for.")
        name, verb = unquote(match["name"]), match["verb"]
        if refused := self._refused(request, name):
            return refused
        revision, folder = unquote(match["revision"] or "main"), unquote(match["path"] or "")
        commit = self._repositories.find(name, revision)
        if commit is None:
            return replies.revision_not_found(revision)
        if verb == "tree":
            return replies.tree(request, commit, folder, self.url, self.page_size)
        blobs = _query(request).get("blobs", "").lower() in ("true", "1")
        private, gated = name in self.private, name in self.gated
        return replies.model_info(name, commit, private=private, gated=gated, blobs=blobs)

    def _resolve(self, request: Request, path: str, turn: _Turn) -> Reply:
        cached = _CACHED.fullmatch(path)
        match = cached or _RESOLVE.fullmatch(path)
        if match is None:
            turn.subject = path
            return replies.error(404, "Sorry, we can't find the page you are looking for.")
        name, revision, turn.subject = (unquote(match[each]) for each in ("name", "revision", "path"))
        if refused := self._refused(request, name):
            return refused
        if name in self.gated and _token(request) not in self.granted:
            return replies.gated(name, _token(request) != "")
        commit = self._repositories.find(name, revision)
        if commit is None:
            return replies.revision_not_found(revision)
        file = commit.files.get(turn.subject)
        if file is None:
            return replies.entry_not_found(turn.subject, commit)
        if file.lfs:
            return replies.large_file(file, commit, self._link(file))
        if self.resolve_cache and not cached:
            return replies.redirected_to_cache(path, name, file, commit)
        return self._without_ranges(replies.small_file(self._as_asked(request), file, commit))

    def _refused(self, request: Request, name: str) -> Reply | None:
        """The answer to who may not know of the repository, or calls it by an old name; None for others."""
        if name in self.renamed:
            new = request.path.replace(f"/{name}", f"/{self.renamed[name]}", 1)
            return replies.moved(new)
        self._repositories.was_asked(name)
        token = _token(request)
        if name in self.private and token != self.private[name]:
            return replies.repository_not_found(404 if token else 401)
        if name not in self._repositories:
            return replies.repository_not_found(self.missing_status)
        return None

    def _link(self, file: HubFile) -> str:
        expires = int(time.time()) + _LINK_SECONDS
        signature = self.links.sign(file)
        query = f"Expires={expires}&Signature={signature}&Key-Pair-Id=HUB"
        return f"{self.cdn_url}/repos/{signature[:2]}/{quote(file.git_id)}?{query}"

    def _answer_cdn(self, request: Request, turn: _Turn) -> Reply:
        file = self.links.use(_query(request).get("Signature", ""))
        turn.subject = file.path if file else request.path.partition("?")[0]
        if file is None:
            reply = replies.denied()
        elif "authorization" in request.headers:
            reply = replies.two_logins()
        else:
            # its own name for the bytes, as storage services have: who takes it for the sha256 is found out
            reply = replies.content(self._as_asked(request), file, f'"{file.git_id[:32]}-1"')
        return self._finish("cdn", Part.CDN, request, turn, self._without_ranges(reply))

    def _as_asked(self, request: Request) -> Request:
        return request if self._ranges else replace(request, headers={})

    def _without_ranges(self, reply: Reply) -> Reply:
        return reply if self._ranges else reply.with_headers(Accept_Ranges=None)

    def _finish(self, server: ServerName, part: Part, request: Request, turn: _Turn, reply: Reply) -> Reply:
        reply = self.rules.bend(part, turn.subject, request, reply)
        path, _, query = request.path.partition("?")
        authorized = "authorization" in request.headers
        file = "" if turn.subject.startswith("/") else turn.subject
        asked = HubRequest(server, request.method, path, query, request.range, authorized, reply.status, file)
        with self._lock:
            self._log.append(asked)
        return reply


def _token(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ").strip()


def _query(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(request.path.partition("?")[2]).items()}
