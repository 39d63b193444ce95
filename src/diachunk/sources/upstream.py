"""Where a component came from, as an origin for its files alone: a repository on the Hub, or URLs.

What a manifest's `upstream` says, or a recipe. The same paths may mean other files elsewhere (every repository has a
config.json), so these origins are never asked for the files of another component.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

from diachunk.errors import ManifestError, UsageError
from diachunk.manifest.recipe import hub_upstream
from diachunk.schedule.work import BlobFacts
from diachunk.sources.context import SourceContext, split_url
from diachunk.sources.http import HttpOrigin
from diachunk.sources.template import OriginTemplate

HUB = "hub"
URL = "url"
DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True)
class HubAccess:
    """How the Hub is reached: its endpoint, and the user's token for it. Both are the user's own settings."""

    endpoint: str

    @cached_property
    def token(self) -> str:
        """HF_TOKEN, or what `hf auth login` left; "" if there is none. Imports that library: not before it is due."""
        token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
        if not token:
            with contextlib.suppress(ImportError):
                from huggingface_hub import get_token

                token = get_token() or ""
        return token.strip()

    def authorization(self) -> str | None:
        """The header that goes to the endpoint, and to no other host."""
        return f"Bearer {self.token}" if self.token else None


def hub_access() -> HubAccess:
    """The Hub at HF_ENDPOINT, or the public one.

    Raises:
        UsageError: HF_ENDPOINT is no URL.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    if "://" not in endpoint or split_url(endpoint).scheme not in ("http", "https"):
        raise UsageError(f"HF_ENDPOINT: {endpoint!r:.80} is not an http(s) URL")
    return HubAccess(endpoint.rstrip("/"))


class UpstreamOrigin(HttpOrigin):
    """One component's files, each at a URL of its own."""

    def __init__(
        self,
        component: str,
        urls: OriginTemplate,
        base: str,
        context: SourceContext,
        label: str,
        authorize: Callable[[], str | None] | None = None,
    ) -> None:
        super().__init__(
            base,
            context,
            locate=lambda _, path: urls.locate("", path),
            authorize=authorize,
        )
        self._component = component
        self.label = label

    def serves(self, blob: BlobFacts) -> bool:
        return blob.component == self._component


class _OneFile(OriginTemplate):
    """A URL that is the file itself."""

    def __init__(self, url: str) -> None:
        self._url = url

    def locate(self, component: str, path: str) -> str:
        return self._url


def open_upstream(
    component: str, upstream: Mapping[str, Any], hub: HubAccess, context: SourceContext
) -> HttpOrigin | None:
    """The origin that a component's `upstream` names; None if it names none that can be asked.

    A manifest is untrusted: whatever it says there, the host is the user's hub, or a public one.

    Args:
        context: for URLs; the hub's endpoint counts as named by the user.
    """
    kind, url = upstream.get("kind"), upstream.get("url")
    repository, commit = upstream.get("repository"), upstream.get("commit")
    try:
        if kind == HUB and isinstance(repository, str) and isinstance(commit, str):
            return _open_hub(component, repository, commit, hub, context)
        if kind == URL and isinstance(url, str):
            return open_url(component, url, context)
    except (ManifestError, UsageError):
        return None
    return None


def where(upstream: Mapping[str, Any], hub: HubAccess) -> str:
    """Where a component comes from, for people; "" if its `upstream` names nothing that can be asked."""
    kind, url, repository = upstream.get("kind"), upstream.get("url"), upstream.get("repository")
    if kind == HUB and isinstance(repository, str):
        return f"{hub.endpoint}/{repository}"
    return url if kind == URL and isinstance(url, str) else ""


def hub_url(endpoint: str, repository: str, commit: str) -> str:
    """`ENDPOINT/ORG/REPO/resolve/COMMIT`, below which the files of a repository are."""
    return f"{endpoint.rstrip('/')}/{quote(repository, safe='/')}/resolve/{quote(commit, safe='')}"


def _open_hub(
    component: str, repository: str, commit: str, hub: HubAccess, context: SourceContext
) -> HttpOrigin:
    hub_upstream(repository, commit)  # else a manifest could name any path of the hub's host
    base = hub_url(hub.endpoint, repository, commit)
    named = SourceContext(context.limits)
    label = f"{urlsplit(hub.endpoint).netloc}/{repository}"
    return UpstreamOrigin(component, OriginTemplate(base), hub.endpoint, named, label, hub.authorization)


def open_url(component: str, url: str, context: SourceContext) -> HttpOrigin:
    """Files of a component at a template with {path}, or its one file at the URL itself.

    Raises:
        UsageError: not an http(s) URL.
    """
    split = split_url(url)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise UsageError(f"{url}: not an http(s) URL")
    template = OriginTemplate(url) if "{path}" in url else _OneFile(url)
    return UpstreamOrigin(component, template, f"{split.scheme}://{split.netloc}", context, split.netloc)
