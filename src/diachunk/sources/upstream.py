"""Where a component came from, as an origin for its files alone: a repository on the Hub, or URLs.

What a manifest's `upstream` says, or a recipe. The same paths may mean other files elsewhere (every repository has a
config.json), so these origins are never asked for the files of another component.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from diachunk.errors import ManifestError, UsageError
from diachunk.manifest.recipe import hub_upstream
from diachunk.schedule.health import Fault
from diachunk.schedule.work import BlobFacts, Run
from diachunk.sources.base import Flow, SourceFault, Stream
from diachunk.sources.context import SourceContext, split_url
from diachunk.sources.http import HttpOrigin
from diachunk.sources.hub_access import HUB, URL, HubAccess, hub_url
from diachunk.sources.template import OriginTemplate


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
            login_first=False,  # most have one for such hosts, for other things than what everybody may read
        )
        self._component = component
        self.label = label

    def serves(self, blob: BlobFacts) -> bool:
        return blob.component == self._component


class HubOrigin(UpstreamOrigin):
    """A repository of the Hub. What is refused there is no matter of a netrc."""

    denied = ""

    def fill(self, run: Run, start: int, view: memoryview, flow: Flow) -> None:
        with self._in_words():
            super().fill(run, start, view, flow)

    def stream(self, run: Run, flow: Flow) -> Stream:
        with self._in_words():
            return super().stream(run, flow)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except SourceFault as fault:
            if fault.fault is not Fault.DENIED:
                raise
            raise SourceFault(Fault.DENIED, f"{fault.detail.partition(':')[0]}: {self.denied}") from fault


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


def _open_hub(
    component: str, repository: str, commit: str, hub: HubAccess, context: SourceContext
) -> HttpOrigin:
    hub_upstream(repository, commit)  # else a manifest could name any path of the hub's host
    base = hub_url(hub.endpoint, repository, commit)
    named = SourceContext(context.limits)
    label = f"{urlsplit(hub.endpoint).netloc}/{repository}"
    origin = HubOrigin(component, OriginTemplate(base), hub.endpoint, named, label, hub.authorization)
    page = f"{hub.endpoint}/{repository}"
    origin.denied = (
        f"gated or private? ask for access at {page}, and log in with `hf auth login` or set HF_TOKEN"
    )
    return origin


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
