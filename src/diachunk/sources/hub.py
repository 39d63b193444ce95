"""What the Hub says about a repository: commit, files, sizes, digests. Asked by way of huggingface_hub.

The bytes come through our own engine (sources/upstream.py); only these few small answers go through that library.
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from diachunk.digest import is_git_id
from diachunk.errors import DiachunkError, ManifestError, TransferIncomplete, UsageError
from diachunk.limits import Limits
from diachunk.manifest.paths import path_fault
from diachunk.manifest.recipe import HubUpstream
from diachunk.manifest.stated import StatedComponent, StatedFile
from diachunk.manifest.strict_json import quote
from diachunk.sources.connections import fault_of, proxy_for
from diachunk.sources.hub_access import HUB, HubAccess
from diachunk.sources.reply import retry_after_s
from diachunk.version import __version__
from diachunk.within import within

_ANSWER_S = 60.0
"""The library itself waits for ever."""
_PAST_THE_PROXY = ("certificate refused", "TLS failed", "the proxy: ")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Repository:
    """What the Hub states of a revision. `private`: it takes a credential to get it."""

    name: str
    commit: str
    private: bool
    files: tuple[StatedFile, ...]


def describe(
    component: str, upstream: HubUpstream, access: HubAccess, limits: Limits
) -> tuple[StatedComponent, bool]:
    """A component as the Hub has it now, and whether it takes a credential to get it.

    Raises:
        UsageError: no such repository, revision or file; or huggingface_hub is not installed.
        TransferIncomplete: the Hub does not answer, or refuses.
        ManifestError: it states what cannot be.
    """
    found = ask(component, upstream, access, limits)
    chosen = _choose(found, upstream)
    record = {"kind": HUB, "repository": upstream.repository, "commit": found.commit}
    if len(chosen) == len(found.files):
        record["files"] = (
            "all"  # whoever shows them to the Hub's own client may then say that nothing is missing
        )
    return StatedComponent(component, record, chosen), found.private


def ask(component: str, upstream: HubUpstream, access: HubAccess, limits: Limits) -> Repository:
    """Asks for commit and files of a revision. Raises: as `describe`."""
    host = urlsplit(access.endpoint).netloc
    wanted = f"{host}/{upstream.repository}"
    api = _api(access)
    patience = _Patience(limits.patience_s)
    try:
        info = patience.ask(lambda: api.model_info(upstream.repository, revision=upstream.revision))
        commit = str(info.sha)
        rows = patience.ask(lambda: _rows(api, upstream.repository, commit, limits.manifest_files_max))
    except DiachunkError:
        raise
    except TimeoutError as error:
        raise TransferIncomplete(
            f"{host} gave no answer in {_ANSWER_S:.0f} s about {upstream.repository}",
            hint="run it again; `diachunk doctor --online` looks at the network",
        ) from error
    except Exception as error:
        raise _told(error, wanted, upstream, access) from error
    if not is_git_id(commit):
        raise ManifestError(f"{wanted}: {quote(commit, 60)} is not a commit")
    if upstream.pinned and commit != upstream.revision:
        raise ManifestError(f"{wanted}: asked for commit {upstream.revision}, the Hub answers with {commit}")
    files = tuple(_stated(row, component, wanted, limits) for row in rows)
    private = bool(getattr(info, "private", False)) or bool(getattr(info, "gated", False))
    return Repository(upstream.repository, commit, private, files)


def _api(access: HubAccess) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UsageError(
            "asking the Hub needs the huggingface_hub package", hint="pip install 'diachunk[hub]'"
        ) from error
    token = access.token or False
    return HfApi(endpoint=access.endpoint, token=token, library_name="diachunk", library_version=__version__)


def _rows(api: Any, repository: str, commit: str, files_max: int) -> list[Any]:
    rows: list[Any] = []
    for row in api.list_repo_tree(repository, recursive=True, revision=commit):
        if hasattr(row, "size"):  # folders have none
            rows.append(row)
        if len(rows) > files_max:
            raise ManifestError(f"{repository} states more than {files_max:,} files")
    return rows


class _Patience:
    """Asks again when the Hub says how soon one may, as long as that is not too much in all."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds

    def ask(self, question: Callable[[], _T]) -> _T:
        while True:
            try:
                return within(_ANSWER_S, question, "diachunk-hub")
            except Exception as error:
                response = getattr(error, "response", None)
                wait_s = retry_after_s(getattr(response, "headers", {}))
                if getattr(response, "status_code", 0) not in (429, 503) or not 0 < wait_s <= self._left_s:
                    raise
                self._left_s -= wait_s
                time.sleep(wait_s)


def _stated(row: Any, component: str, wanted: str, limits: Limits) -> StatedFile:
    path, size = str(row.path), row.size
    if fault := path_fault(path, limits):
        raise ManifestError(f"{wanted}: the path {quote(path)} {fault}")
    lfs = getattr(row, "lfs", None)
    sha256 = str(lfs.sha256) if lfs is not None else ""
    git = "" if lfs is not None else str(row.blob_id)
    right = (
        len(sha256) == 64 and set(sha256) <= set("0123456789abcdef") if lfs is not None else is_git_id(git)
    )
    if type(size) is not int or not 0 <= size < 2**53 or not right:
        raise ManifestError(f"{wanted}: {quote(path)} has no usable size and digest")
    return StatedFile(component, path, size, sha256, git)


def _choose(found: Repository, upstream: HubUpstream) -> tuple[StatedFile, ...]:
    """The files that the recipe wants, in the order of their paths.

    Raises:
        UsageError: one that it names is not there, or nothing is.
    """
    paths = {file.path for file in found.files}
    left = set(paths)
    if upstream.files:
        for pattern in upstream.files:
            if not _fitting(paths, (pattern,)):
                raise UsageError(
                    f"{upstream.repository} has no {quote(pattern)} at {upstream.revision:.40}",
                    hint="the repository was changed, or the recipe names another file",
                )
        left = _fitting(paths, upstream.files)
    left -= _fitting(paths, upstream.exclude)
    chosen = [file for file in found.files if file.path in left]
    if not chosen:
        raise UsageError(f"{upstream.repository} has none of the files asked for")
    return tuple(sorted(chosen, key=lambda file: file.path.encode()))


def _fitting(paths: Set[str], patterns: Iterable[str]) -> set[str]:
    """Names are looked up: a recipe may list thousands of them, for a repository of as many."""
    fitting: set[str] = set()
    for pattern in patterns:
        if pattern in paths:
            fitting.add(pattern)
        if any(char in pattern for char in "*?["):
            fits = re.compile(fnmatch.translate(pattern)).match
            fitting.update(path for path in paths if fits(path))
    return fitting


def _told(error: Exception, wanted: str, upstream: HubUpstream, access: HubAccess) -> DiachunkError:
    """One line for a person, for what the library raises. By name: the classes moved between its versions."""
    kinds = {each.__name__ for each in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{access.endpoint}/{upstream.repository}"
    login = "" if access.token else "; log in with `hf auth login`, or set HF_TOKEN"
    if "GatedRepoError" in kinds:
        return TransferIncomplete(f"{wanted} is gated", hint=f"ask for access at {page}{login}")
    if "RevisionNotFoundError" in kinds:
        return UsageError(f"{wanted} has no revision {upstream.revision!r:.80}", hint=f"see {page}")
    if "DisabledRepoError" in kinds:
        return TransferIncomplete(f"{wanted} was disabled by the Hub", hint=f"see {page}")
    if "RepositoryNotFoundError" in kinds or status == 404:
        hint = "is the name right? a private repository needs a login" + login
        return UsageError(f"{wanted}: no such repository, or it is private", hint=hint)
    if "OfflineModeIsEnabled" in kinds:
        return TransferIncomplete(
            f"cannot ask about {wanted}: HF_HUB_OFFLINE is set", hint="unset HF_HUB_OFFLINE to fetch"
        )
    if status in (401, 403):
        return TransferIncomplete(f"{wanted}: {status}, access denied", hint=f"see {page}{login}")
    if status == 429:
        return TransferIncomplete(
            f"{wanted}: the Hub limits how often one may ask (429)", hint="wait some minutes" + login
        )
    if status is not None:
        return TransferIncomplete(f"cannot ask about {wanted}: status {status}", hint="try again later")
    if "JSONDecodeError" in kinds:
        return TransferIncomplete(
            f"cannot ask about {wanted}: the answer is not the Hub's (a login page? a captive portal?)",
            hint="open any page in a browser and sign in there, then run the same again; `diachunk doctor --online`",
        )
    return TransferIncomplete(
        f"cannot ask about {wanted}: {_reason(error, access.endpoint)}",
        hint="what is here already works offline; `diachunk doctor --online` looks at the network",
    )


def _reason(error: Exception, endpoint: str) -> str:
    """In the words in which origins' troubles are told, whichever library the Hub's own client asks with."""
    if isinstance(error, ImportError) and "SOCKS" in str(error):
        return "cannot use a SOCKS proxy"
    words = fault_of(error).detail
    kinds = {each.__name__ for each in type(error).__mro__}
    never_reached = not kinds.isdisjoint(("ConnectError", "ConnectTimeout", "ProxyError"))
    if never_reached and not words.startswith(_PAST_THE_PROXY) and proxy_for(endpoint):
        words = f"the proxy: {words.removeprefix('ProxyError: ')}"
    return words
