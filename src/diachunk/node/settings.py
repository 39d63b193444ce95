"""What a node is to do, settled before it starts."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diachunk.limits import Limits
from diachunk.node.model import PORTS
from diachunk.sources.secret import Secret


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How a process takes part in the swarm.

    Attributes:
        share: answer others; else it only asks.
        discover: look for others, and be found, by mDNS.
        host: listen on this address alone; "" for all of them.
        ports: the first that is free is taken.
        peers: HOST[:PORT] or dns:NAME[:PORT].
        allow: networks that may ask, besides this machine's own and the private ones.
        secret: the lab's; None: whoever may ask need not prove anything.
        max_up_bps: cap on all uploads together.
        serves: holds the store's claim, shares what other processes put there, outlives every fetch.
        node: names this process to others.
    """

    share: bool = True
    discover: bool = True
    host: str = ""
    ports: Sequence[int] = PORTS
    peers: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    secret: Secret | None = None
    max_up_bps: int | None = None
    limits: Limits = field(default_factory=Limits)
    serves: bool = False
    token_file: Path | None = None
    node: str = field(default_factory=lambda: secrets.token_hex(16))
