"""What the parts of a node tell each other."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import NamedTuple, Self

from diachunk.digest import Digest
from diachunk.errors import UsageError

PORTS = range(8420, 8430)
"""Where nodes listen: `serve` on the first, a fetch on the first that is free."""
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]{2,64})\]|([^:\[\]\s/]{1,253}))(?::(\d{1,5}))?")


class Address(NamedTuple):
    """Where a node listens: an IP address in its canonical text (no brackets), or a name not looked up yet."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, port: int = PORTS[0]) -> Self:
        """Reads HOST[:PORT]; an IPv6 address stands in brackets.

        Raises:
            UsageError: it is something else.
        """
        match = _HOST_PORT.fullmatch(text)
        number = int(match[3] or port) if match else 0
        if match is None or not 0 < number < 65536:
            raise UsageError(
                f"peer {text!r:.80}: not HOST[:PORT]", hint="such as lab-7, lab-7:8420 or [fd00::7]"
            )
        host = match[1] or match[2]
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            pass
        return cls(host, number)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Want:
    """What a fetch is after: it makes its node a member of that manifest's swarm.

    Attributes:
        components: which; never empty.
        feeds: whether it has an origin to ask.
        taking: distinct digests (by number, P5) that it is taking from origins now, and bytes so far.
    """

    manifest_id: Digest
    components: tuple[str, ...]
    feeds: bool
    taking: tuple[tuple[int, int], ...] = ()
