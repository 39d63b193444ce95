"""What the parts of a node's server share."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from diachunk.digest import Digest
from diachunk.limits import DEFAULT, Limits
from diachunk.node.guard import Guard
from diachunk.node.model import Address, Want
from diachunk.node.serving.metrics import Metrics
from diachunk.node.serving.refusals import Refusals
from diachunk.node.serving.uploads import Uploads
from diachunk.node.stock.room import Room
from diachunk.node.stock.shelf import Shelf
from diachunk.node.stock.wants import Wants
from diachunk.version import __version__


class Roster(Protocol):
    """Who else is there (P9, P14)."""

    @property
    def count(self) -> int:
        """How many are known."""
        ...

    def announced(self, host: str, port: int | None, node: str, store: str, wants: Sequence[Want]) -> None:
        """A node says that it is there; `host` is where its connection came from."""
        ...

    def others(self, host: str, manifest_ids: Sequence[Digest]) -> list[tuple[Address, float]]:
        """Whom a node at `host` should know, the feeders of what it wants first; and how many seconds ago each was
        heard of.
        """
        ...


class NobodyElse:
    """A roster of a node that looks for no others."""

    count = 0

    def announced(self, host: str, port: int | None, node: str, store: str, wants: Sequence[Want]) -> None:
        return

    def others(self, host: str, manifest_ids: Sequence[Digest]) -> list[tuple[Address, float]]:
        return []


@dataclass(slots=True)
class State:
    """One node.

    Attributes:
        port: where it listens; 0 before it does.
        listeners: long polls that wait now.
    """

    shelf: Shelf
    wants: Wants
    uploads: Uploads
    guard: Guard
    roster: Roster = field(default_factory=NobodyElse)
    limits: Limits = DEFAULT
    node_id: str = field(default_factory=lambda: secrets.token_hex(16))
    store_id: str = ""
    version: str = __version__
    port: int = 0
    listeners: int = 0
    metrics: Metrics = field(default_factory=Metrics)
    room: Room = field(init=False)
    refusals: Refusals = field(default_factory=Refusals)

    def __post_init__(self) -> None:
        self.store_id = self.store_id or self.shelf.store.layout.store_id
        self.room = Room(self.shelf.store)
        self.metrics.watch(self.shelf, self.uploads, self.room, lambda: self.roster.count)


STATE: web.AppKey[State] = web.AppKey("diachunk_state", State)
