"""What an emulated Hub knows: repositories and their revisions, the links it has signed, what it was asked."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from diachunk.testing.hub_files import Commit, HubFile, commit_of

ServerName: TypeAlias = Literal["hub", "cdn"]


@dataclass(frozen=True, slots=True)
class HubRequest:
    """One request as it was answered.

    Attributes:
        path: as sent, without the query.
        range: the Range header, or None.
        status: of the answer, even where a fault kept it from being sent.
        file: the path in its repository, if the answer was about a file.
    """

    server: ServerName
    method: str
    path: str
    query: str
    range: str | None
    had_authorization: bool
    status: int
    file: str


@dataclass(slots=True)
class _Repository:
    commits: dict[str, Commit] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Move:
    """A revision that will stand for another commit, once so many more requests have named its repository."""

    revision: str
    commit_id: str
    after_requests: int


class Repositories:
    """Repositories by name; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._repositories: dict[str, _Repository] = {}

    def add(self, repository: str, commit: Commit, revision: str) -> None:
        with self._lock:
            known = self._repositories.setdefault(repository, _Repository())
            known.commits[commit.id] = commit
            known.revisions[revision] = commit.id

    def __contains__(self, repository: str) -> bool:
        with self._lock:
            return repository in self._repositories

    def find(self, repository: str, revision: str) -> Commit | None:
        """The commit of a branch, tag or commit id; None if there is none, or no such repository."""
        with self._lock:
            known = self._repositories.get(repository)
            return known.commits.get(known.revisions.get(revision, revision)) if known else None

    def plan(self, repository: str, move: Move) -> None:
        """
        Raises:
            KeyError: there is no such commit.
        """
        with self._lock:
            known = self._repositories[repository]
            known.commits[move.commit_id]
            known.moves.append(move)

    def was_asked(self, repository: str) -> None:
        """Counts a request that names the repository; what is due moves before it is answered."""
        with self._lock:
            known = self._repositories.get(repository)
            if known is None:
                return
            for move in known.moves:
                if move.after_requests == 0:
                    known.revisions[move.revision] = move.commit_id
            left = (replace(move, after_requests=move.after_requests - 1) for move in known.moves)
            known.moves = [move for move in left if move.after_requests >= 0]

    def restate(self, repository: str, path: str, change: Callable[[HubFile], HubFile]) -> None:
        """Changes what every commit states about a file; the commits keep their ids.

        Raises:
            KeyError: there is no such file.
        """
        with self._lock:
            known = self._repositories[repository]
            holders = [commit for commit in known.commits.values() if path in commit.files]
            if not holders:
                raise KeyError(path)
            for commit in holders:
                files: Iterable[HubFile] = ({**commit.files, path: change(commit.files[path])}).values()
                known.commits[commit.id] = commit_of(repository, files, commit.id)


@dataclass(frozen=True, slots=True)
class Link:
    """A signed link to one file on the second host."""

    file: HubFile
    made_at_s: float
    uses: int = 0


class Links:
    """Links by signature; safe to use from several threads.

    Attributes:
        lifetime_s: how long a link works; None is for ever.
        uses_max: how many requests it answers; None is any number.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lifetime_s: float | None = None
        self.uses_max: int | None = None
        self._clock = clock
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._made = 0

    def sign(self, file: HubFile) -> str:
        """A new signature: no two are the same."""
        with self._lock:
            self._made += 1
            signature = hashlib.sha256(f"{self._made}/{file.git_id}".encode()).hexdigest()[:32]
            self._links[signature] = Link(file, self._clock())
        return signature

    def use(self, signature: str) -> HubFile | None:
        """The file that it leads to; None once it has expired, or if it was never made."""
        with self._lock:
            link = self._links.get(signature)
            if link is None:
                return None
            if self.lifetime_s is not None and self._clock() - link.made_at_s >= self.lifetime_s:
                return None
            if self.uses_max is not None and link.uses >= self.uses_max:
                return None
            self._links[signature] = replace(link, uses=link.uses + 1)
            return link.file

    def expire_all(self) -> None:
        """No link made so far works any more."""
        with self._lock:
            self._links.clear()
