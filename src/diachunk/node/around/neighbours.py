"""What this node knows of another one that it met, and what both sides of it need of the neighbourhood."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from diachunk.digest import Digest
from diachunk.limits import Limits
from diachunk.manifest.statement import Shared
from diachunk.node.around.answers import NodeFacts
from diachunk.node.around.roster import How, Roster
from diachunk.node.around.talking import Talker
from diachunk.node.model import Address, Want
from diachunk.sources.peer import Given
from diachunk.transfer.company import Company


@dataclass(frozen=True, slots=True)
class Identity:
    """This process as others see it: `node` is random, 32 hex digits; `store` names its store."""

    node: str
    store: str


class Wanting(Protocol):
    """What this node says it wants (`node.stock.wants.Wants`)."""

    def put(self, want: Want) -> None: ...
    def drop(self, manifest_id: Digest) -> None: ...
    def all(self) -> Iterable[Want]: ...


class Lending(Protocol):
    """Where a session's partials are offered to others (`node.stock.shelf.Shelf`)."""

    def lend(self, company: Company, shared: Shared) -> None: ...
    def unlend(self, company: Company) -> None: ...


@dataclass(slots=True)
class Neighbour:
    """A node that answered.

    Attributes:
        reached: it answered the last time it was asked.
        rtt_s: from a short request to its answer.
        trouble: what it did when it last gave no answer of use, or "".
        lie: what it was caught at, or "": an answer that no node gives.
        given: what was taken from it, in all sessions.
        announced_at: when it was last told of us.
    """

    address: Address
    facts: NodeFacts
    reached: bool = True
    rtt_s: float = 0.0
    trouble: str = ""
    lie: str = ""
    given: Given = field(default_factory=Given)
    announced_at: float = float("-inf")

    @property
    def state(self) -> str:
        """In words for people; "" while all is well."""
        return self.lie or ("" if self.reached else self.trouble)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as `diachunk peers` shows it. See `views.PeerView`; `neighbour` has what it holds.

    Attributes:
        rtt_s: None while it does not answer. rate_bps: None where nothing was taken from it.
        trouble: why it cannot be used, in words; "" while all is well.
    """

    address: Address
    how: str
    version: str = ""
    store: str = ""
    secret: bool = False
    rtt_s: float | None = None
    rate_bps: float | None = None
    trouble: str = ""
    neighbour: Neighbour | None = None


class Around(Protocol):
    """The neighbourhood, as a manifest's swarm sees it."""

    limits: Limits
    roster: Roster
    talker: Talker
    wants: Wanting
    shelf: Lending | None

    @property
    def neighbours(self) -> dict[Address, Neighbour]: ...

    @property
    def me(self) -> str:
        """This node's address as others see it; "" while unknown, or when it does not share."""
        ...

    def announce(self) -> None:
        """Something is wanted here: others are told at once."""
        ...

    def lost(self, address: Address, trouble: str) -> None:
        """It gave no answer: it is looked for again."""
        ...

    def how(self, address: Address) -> How: ...

    def named(self) -> list[NodeView]:
        """The machines that the user or the settings name, reached or not."""
        ...

    def is_looking(self) -> bool:
        """Whether somebody may be found any moment."""
        ...
