"""The page for people: what is here, who is served. No scripts, nothing from elsewhere. P10 of docs/protocol.md."""

from __future__ import annotations

import socket
from html import escape
from typing import TYPE_CHECKING

from diachunk.node.serving.page_style import STYLE

if TYPE_CHECKING:
    from diachunk.node.serving.state import State
    from diachunk.node.stock.holdings import Entry

HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ROWS_MAX = 200
_CLIENTS_MAX = 24
_REFRESH_S = 5


def page(state: State, host: str) -> str:
    """The whole document. Everything that others named is escaped."""
    entries = state.shelf.manifests()
    name = socket.gethostname()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(name)} · diachunk</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{_REFRESH_S}"><style>{STYLE}</style></head><body><main>'
        f"{_head(state, name)}{_tiles(state, entries)}"
        f'<div class="columns"><section class="wide"><h2>Checkpoints</h2>{_checkpoints(state, entries)}</section>'
        f"<section><h2>Being served</h2>{_clients(state)}</section></div>"
        f"{_foot(state, entries, host)}</main></body></html>\n"
    )


def _head(state: State, name: str) -> str:
    lock = "lab secret" if state.guard.secret is not None else "open to this network"
    return (
        f'<header><h1>{escape(name)}</h1><p><span class="pill">diachunk {escape(state.version)}</span>'
        f'<span class="pill">port {state.port}</span><span class="pill">{lock}</span></p></header>'
    )


def _tiles(state: State, entries: list[Entry]) -> str:
    turns, rates = state.uploads.turns, state.uploads.turns.rates()
    complete = sum(entry.have_bytes == entry.total_bytes for entry in entries)
    waiting = f"{turns.waiting} waiting" if turns.waiting else "nobody waits"
    cap = f"of {_rate(state.uploads.max_up_bps)} at most" if state.uploads.max_up_bps else "no cap"
    tiles = (
        ("Checkpoints", str(complete), f"complete, of {len(entries)}"),
        ("Verified here", _size(sum(entry.have_bytes for entry in entries)), _of(entries)),
        ("Sending", _rate(sum(rates.values())), cap),
        ("Upload slots", f"{turns.active} / {turns.slots}", waiting),
        ("Sent so far", _size(state.uploads.sent_bytes), "since this node started"),
    )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><h3>{title}</h3><b>{escape(value)}</b><small>{escape(below)}</small></div>'
            for title, value, below in tiles
        )
        + "</div>"
    )


def _of(entries: list[Entry]) -> str:
    return f"of {_size(sum(entry.total_bytes for entry in entries))}"


def _checkpoints(state: State, entries: list[Entry]) -> str:
    if not entries:
        return '<p class="none">Nothing yet. <code>diachunk publish</code> or <code>diachunk fetch</code> one.</p>'
    rows = "".join(_row(state, entry) for entry in entries[:_ROWS_MAX])
    more = f'<p class="none">and {len(entries) - _ROWS_MAX} more</p>' if len(entries) > _ROWS_MAX else ""
    return (
        "<table><thead><tr><th>Name</th><th>Here</th><th class=n>Size</th><th>Id</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{more}"
    )


def _row(state: State, entry: Entry) -> str:
    share = 1.0 if not entry.total_bytes else entry.have_bytes / entry.total_bytes
    want = state.wants.of(entry.id)
    if entry.have_bytes == entry.total_bytes:
        kind, said = "done", "complete"
    elif want is not None:
        kind, said = "busy", f"fetching, {_percent(share)}"
    else:
        kind, said = "part", _percent(share) if entry.have_bytes else "nothing yet"
    revision = f'<span class="rev">@{escape(entry.revision)}</span>'
    return (
        f'<tr class="{kind}"><td class="name">{escape(entry.name)}{revision}</td>'
        f'<td><div class="bar"><i style="width:{share * 100:.2f}%"></i></div><span>{said}</span></td>'
        f'<td class="n">{_size(entry.total_bytes)}</td>'
        f'<td><a href="/v1/manifests/{entry.id.hex()}"><code>{entry.id.hex()[:8]}</code></a></td></tr>'
    )


def _clients(state: State) -> str:
    rates = sorted(state.uploads.turns.rates().items(), key=lambda each: -each[1])
    if not rates:
        return '<p class="none">Nobody right now.</p>'
    fastest = rates[0][1]
    rows = "".join(
        f"<li><span>{escape(address)}</span><b>{_rate(rate)}</b>"
        f'<div class="bar"><i style="width:{100 * rate / fastest:.2f}%"></i></div></li>'
        for address, rate in rates[:_CLIENTS_MAX]
    )
    more = f'<p class="none">and {len(rates) - _CLIENTS_MAX} more</p>' if len(rates) > _CLIENTS_MAX else ""
    return f'<ul class="clients">{rows}</ul>{more}'


def _foot(state: State, entries: list[Entry], host: str) -> str:
    whole = [entry for entry in entries if entry.have_bytes == entry.total_bytes]
    what = next((f"{each.name}@{each.revision}" for each in whole or entries), "NAME").removesuffix("@main")
    near = host.startswith(("127.", "localhost", "[::1]"))
    peer = f"{socket.gethostname()}:{state.port}" if near or not host else host
    return (
        "<footer><p>On another machine:</p>"
        f"<pre>diachunk fetch {escape(what)} --peer {escape(peer)}</pre>"
        '<p><a href="/metrics">Metrics</a> · <a href="/v1/node">This node as JSON</a> · '
        f"refreshed every {_REFRESH_S} s</p></footer>"
    )


def _percent(share: float) -> str:
    """Never 100% of what is not complete."""
    return f"{min(99.9, int(share * 1000) / 10):.1f}%"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size_bytes < 1000 or unit == "TB":
            return (
                f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 100 else f"{size_bytes:.1f} {unit}"
            )
        size_bytes /= 1000
    raise AssertionError("unreachable")


def _rate(rate_bps: float) -> str:
    return f"{_size(rate_bps)}/s"
