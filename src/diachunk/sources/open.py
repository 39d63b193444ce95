"""Makes a source of what a user or a manifest wrote: by URL scheme, from the entry points."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import urlsplit

from diachunk.errors import UsageError
from diachunk.sources.base import Source
from diachunk.sources.context import SourceContext

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BUILT_IN = frozenset({"http", "https", "file"})


def open_origin(text: str, context: SourceContext) -> Source:
    """Opens an origin: an http(s) URL, `file://`, a plain directory, or a scheme that a plug-in serves.

    Raises:
        UsageError: it is none of these.
    """
    if "\0" in text:
        raise UsageError(f"origin {text}: not a URL")
    match = _SCHEME.match(text)
    if match is None:
        return _open_directory(text, context)
    scheme = match[1].lower()
    if not context.named_by_user and scheme not in ("http", "https"):
        raise UsageError(f"origin {text}: a manifest may only name http(s) origins")
    source: Source = _factory(scheme, text)(text, context)
    return source


def _open_directory(text: str, context: SourceContext) -> Source:
    from diachunk.sources.directory import DirectoryOrigin

    if not text or not context.named_by_user:
        raise UsageError(f"origin {text!r}: not a URL")
    origin = DirectoryOrigin(text, context)
    if not origin.exists():
        raise UsageError(
            f"origin {text}: neither a URL nor a directory here", hint="https://HOST/PATH, or a directory"
        )
    return origin


def _factory(scheme: str, text: str) -> Callable[[str, SourceContext], Any]:
    if scheme in ("http", "https"):
        from diachunk.sources.http import HttpOrigin

        return HttpOrigin
    if scheme == "file":
        from diachunk.sources.directory import DirectoryOrigin

        return DirectoryOrigin
    for entry in entry_points(group="diachunk.sources"):
        if entry.name == scheme and scheme not in _BUILT_IN:
            try:
                loaded: Callable[[str, SourceContext], Any] = entry.load()
            except Exception as error:  # a package that was installed by halves may raise anything
                what = f"{type(error).__name__}: {error}"
                raise UsageError(
                    f"origin {text}: the plug-in for {scheme}:// ({entry.value}) does not load: {what:.200}"
                ) from error
            return loaded
    raise UsageError(
        f"origin {text}: nothing here speaks {scheme}://", hint="http, https, file, or a plug-in"
    )


def _same_host(url: str, named: str) -> bool:
    """Whether a URL leads to the host of another, by the same scheme or over TLS."""
    try:
        one, two = urlsplit(url), urlsplit(named)
    except ValueError:
        return False
    return one.hostname is not None and one.hostname == two.hostname and one.scheme in (two.scheme, "https")


def open_origins(
    named: tuple[str, ...], from_manifest: tuple[str, ...], context: SourceContext, manifest_url: str = ""
) -> list[Source]:
    """Opens the user's origins and the manifest's, each once.

    Args:
        manifest_url: where the user had the manifest fetched from, or "". Its host is named by that, too.
    """
    stranger = SourceContext(context.limits, named_by_user=False)
    wanted = {
        text: context if manifest_url and _same_host(text, manifest_url) else stranger
        for text in from_manifest
    } | dict.fromkeys(named, context)
    opened = []
    for text in dict.fromkeys((*named, *from_manifest)):
        try:
            opened.append(open_origin(text, wanted[text]))
        except UsageError:
            # A manifest's origins are hints: one that makes no sense must not refuse the whole checkpoint.
            if text in named:
                raise
    return opened
