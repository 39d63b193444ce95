"""Where an origin keeps a file: `PREFIX/<component>/<path>`, or a template with {component} and {path}."""

from __future__ import annotations

import re
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
        text = re.split(r"\{component\}|\{path\}", self._text, maxsplit=1)[0]
        return text.rstrip("/") or "/"

    def locate(self, component: str, path: str) -> str:
        if self._quote:
            component, path = percent_encode(component, safe=""), percent_encode(path, safe="/")
        if self._templated:
            values = {"{component}": component, "{path}": path}
            return re.sub(r"\{component\}|\{path\}", lambda match: values[match[0]], self._text)
        # A query goes with every file: so storage services write a token for a whole folder.
        prefix, mark, query = self._text.partition("?") if self._quote else (self._text, "", "")
        return "/".join(part for part in (prefix.rstrip("/"), component, path) if part) + mark + query
