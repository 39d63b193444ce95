"""Where an origin keeps a file: `PREFIX/<component>/<path>`, or a template with {component} and {path}."""

from __future__ import annotations

from urllib.parse import quote as percent_encode

from diachunk.errors import UsageError


class OriginTemplate:
    """Maps (component, path) to the origin's own name for it."""

    def __init__(self, text: str, *, quote: bool = True) -> None:
        self._text = text
        self._quote = quote
        self._templated = "{path}" in text or "{component}" in text
        if self._templated and "{path}" not in text:
            raise UsageError(f"origin {text}: a template needs {{path}}")

    @property
    def base(self) -> str:
        return self._text.split("{", 1)[0].rstrip("/") or "/"

    def locate(self, component: str, path: str) -> str:
        if self._quote:
            component, path = percent_encode(component, safe=""), percent_encode(path, safe="/")
        if self._templated:
            return self._text.replace("{component}", component).replace("{path}", path)
        return "/".join(part for part in (self._text.rstrip("/"), component, path) if part)
