"""The page for people: what is here, who is served. No scripts, nothing from elsewhere. P10 of docs/protocol.md."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diachunk.node.state import State

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page(state: State, host: str) -> str:
    rows = "".join(
        f"<li>{escape(entry.name)} {entry.have_bytes} of {entry.total_bytes}</li>"
        for entry in state.shelf.manifests()
    )
    return f"<!doctype html><title>diachunk on {escape(host)}</title><ul>{rows}</ul>"
