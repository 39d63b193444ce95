"""What a node tells the rest of the program of others, and of itself."""

from __future__ import annotations

from dataclasses import dataclass

from diachunk.digest import Digest
from diachunk.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Holding:
    """A checkpoint that a node has, wholly or in part.

    Attributes:
        total_bytes: of its files; `have_bytes`: of these, what the node has verified.
        wanted: whether it is fetching it now.
    """

    id: Digest
    name: str
    revision: str
    total_bytes: int
    have_bytes: int
    wanted: bool = False

    @property
    def complete(self) -> bool:
        return self.have_bytes >= self.total_bytes


@dataclass(frozen=True, slots=True)
class PeerView:
    """A machine that is there, or was asked for.

    Attributes:
        address: HOST:PORT.
        how: "named", "dns", "mdns" or "exchange".
        version: of its diachunk; "" where it never answered.
        secret: whether it wants the lab's secret.
        rate_bps: how fast it gave; None where nothing was taken from it.
        trouble: why it cannot be used; "" while all is well.
    """

    address: str
    how: str
    version: str = ""
    secret: bool = False
    rate_bps: float | None = None
    trouble: str = ""
    holdings: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class RefView:
    """What a machine says that a name stands for."""

    address: str
    how: str
    id: Digest
    manifest: Manifest | None = None
