"""How the Hub is reached, and what an `upstream` says in words. Light: planning a fetch needs no HTTP."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from diachunk.errors import UsageError
from diachunk.sources.context import split_url
from diachunk.store.files import read_hint

HUB = "hub"
URL = "url"
DEFAULT_ENDPOINT = "https://huggingface.co"
_PAGES = ("huggingface.co", "www.huggingface.co", "hf.co")
_TOKEN = re.compile(r"[!-~]{1,4096}")
_LOGIN_BYTES_MAX = 64 * 1024
_PLAIN = re.compile(r"[!-~]{1,2000}")


@dataclass(frozen=True)
class HubAccess:
    """How the Hub is reached: its endpoint, and the user's token for it. Both are the user's own settings."""

    endpoint: str

    @cached_property
    def token(self) -> str:
        """HF_TOKEN, or what `hf auth login` left; "" if there is none, or HF_HUB_DISABLE_IMPLICIT_TOKEN forbids it.

        Read here rather than by huggingface_hub: importing that in somebody's process settles, once and for all, what
        HF_HOME and HF_HUB_OFFLINE are to it.
        """
        if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
            return ""
        token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or _login()
        token = token.strip()
        if token and not _TOKEN.fullmatch(token):
            # Said here: the libraries that are handed such a header show it in their errors.
            raise UsageError("HF_TOKEN (or the Hub's login) is no token: it holds a space, or worse")
        return token

    def authorization(self) -> str | None:
        """The header that goes to the endpoint, and to no other host."""
        return f"Bearer {self.token}" if self.token else None


def _login() -> str:
    """The token that `hf auth login` keeps: HF_TOKEN_PATH, else `token` in HF_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(cache, "huggingface")
    path = os.environ.get("HF_TOKEN_PATH") or os.path.join(home, "token")
    data = read_hint(Path(os.path.expandvars(os.path.expanduser(path))), _LOGIN_BYTES_MAX) or b""
    return data.decode("utf-8", "replace")


def hub_access() -> HubAccess:
    """The Hub at HF_ENDPOINT, or the public one.

    Raises:
        UsageError: HF_ENDPOINT is no URL.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    try:
        split = split_url(endpoint)
    except UsageError as error:
        raise UsageError(f"HF_ENDPOINT: {error.message}") from error
    if split.scheme not in ("http", "https") or not split.hostname or not _PLAIN.fullmatch(endpoint):
        raise UsageError(f"HF_ENDPOINT: {endpoint!r:.80} is not an http(s) URL")
    if split.username is not None or split.query:
        raise UsageError("HF_ENDPOINT holds a login or a query", hint="a token goes into HF_TOKEN")
    return HubAccess(endpoint)


def where(upstream: Mapping[str, Any], hub: HubAccess) -> str:
    """Where a component comes from, for people; "" if its `upstream` names nothing that can be asked."""
    kind, url, repository = upstream.get("kind"), upstream.get("url"), upstream.get("repository")
    if kind == HUB and isinstance(repository, str):
        return f"{hub.endpoint}/{repository}"
    return url if kind == URL and isinstance(url, str) else ""


def hub_url(endpoint: str, repository: str, commit: str) -> str:
    """`ENDPOINT/ORG/REPO/resolve/COMMIT`, below which the files of a repository are."""
    return f"{endpoint.rstrip('/')}/{quote(repository, safe='/')}/resolve/{quote(commit, safe='')}"


def repository_of_page(url: str) -> str:
    """ORG/REPO[@REV] of which a URL is the page, as copied from a browser; "" if it is none."""
    try:
        split = urlsplit(url)
    except ValueError:  # no URL at all: whoever opens it says so
        return ""
    if split.hostname not in _PAGES:
        return ""
    words = [unquote(each) for each in split.path.split("/") if each]
    if words[:1] in (["api"], ["datasets"], ["spaces"]):
        return ""
    if len(words) == 4 and words[2] == "tree":
        return f"{words[0]}/{words[1]}@{words[3]}"
    return "/".join(words) if len(words) == 2 else ""
