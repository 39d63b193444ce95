"""Options about other machines, for the verbs that take from them and give to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from diachunk.api.sharing import Sociable
    from diachunk.api.trust.naming import Ask
    from diachunk.config import Config

MaxUp = Annotated[
    str | None, typer.Option("--max-up", metavar="RATE", help="Cap on what others get from here.")
]
NoDiscover = Annotated[
    bool, typer.Option("--no-discover", help="Look for no machines on this network (mDNS).")
]
NoShare = Annotated[bool, typer.Option("--no-share", help="Give nothing to other machines.")]
Linger = Annotated[
    str | None,
    typer.Option(
        "--linger", metavar="T", help="Then stay so long for machines that are not done yet (60s; 0: not)."
    ),
]


@dataclass(frozen=True, slots=True)
class Company:
    """What was said of other machines."""

    peers: tuple[str, ...]
    max_up_bps: int | None
    linger_s: float | None
    discover: bool
    share: bool
    newest: bool = False

    def how(self, config: Config, ask: Ask | None = None) -> Sociable:
        """With what the settings say."""
        from diachunk.api.sharing import Sociable
        from diachunk.values import peers

        return Sociable(
            peers("--peer", list(self.peers)),
            self.share and config.share,
            self.discover and config.discover,
            self.max_up_bps,
            self.linger_s,
            self.newest,
            ask,
        )
