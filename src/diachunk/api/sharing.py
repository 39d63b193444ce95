"""What a call shares with other machines while it runs, and asks of them. One for a whole set of fetches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from diachunk.config import Config
from diachunk.transfer.progress import Listener, Notice, silent

if TYPE_CHECKING:
    from diachunk.api.trust.naming import Ask
    from diachunk.digest import Digest
    from diachunk.manifest import Manifest
    from diachunk.node.node import Node
    from diachunk.transfer.company import Swarm


@dataclass(frozen=True, slots=True)
class Sociable:
    """How far a call goes towards other machines.

    Attributes:
        peers: HOST[:PORT] or dns:NAME[:PORT], besides the configured ones.
        share: give what is verified to others while it runs.
        discover: look for others on this network (mDNS).
        max_up_bps: cap on what is given, bytes a second.
        linger_s: how long to stay for machines that are not done yet; None: as configured.
        newest: also ask for what a name should stand for now that stands for something here.
        ask: shows a person an id that only strangers on the network say a name stands for; None: nobody is there.
    """

    peers: tuple[str, ...] = ()
    share: bool = False
    discover: bool = False
    max_up_bps: int | None = None
    linger_s: float | None = None
    ask: Ask | None = None
    newest: bool = False

    def __bool__(self) -> bool:
        return bool(self.peers or self.share or self.discover)


class Sharing:
    """A node for the length of a `with` block, made when it is first needed. Nothing it does fails a fetch."""

    def __init__(self, config: Config, how: Sociable, listener: Listener = silent) -> None:
        self.how = how
        self._config = config
        self._listener = listener
        self._node: Node | None = None

    def swarm(self, manifest: Manifest) -> Swarm | None:
        """The other machines, for the sessions of one manifest."""
        raise NotImplementedError

    def refs(self, name: str, revision: str) -> Sequence[tuple[str, str, Sequence[tuple[str, Digest]]]]:
        """What the machines that can be reached say a name stands for: (HOST:PORT, how it is known (the values of
        `api.trust.naming.How`), [(revision, id)]). Waits a second or two for those that are still being looked for.
        """
        raise NotImplementedError

    def manifest(self, manifest_id: Digest) -> Manifest | None:
        """A manifest that hashes to this id, from whoever has it; None if nobody gives one."""
        raise NotImplementedError

    def tell(self, text: str) -> None:
        """Says something that a person should know."""
        self._listener(Notice(text))

    def linger(self, tell: Callable[[int], None] = lambda count: None) -> None:
        """Stays until no machine that we know of is incomplete, for `how.linger_s` at most. `tell`: for how many."""
        raise NotImplementedError

    def close(self) -> None:
        """Stops sharing. Bounded in time."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def sharing_or_new(
    given: Sharing | None, config: Config, how: Sociable, listener: Listener
) -> Iterator[Sharing | None]:
    """The caller's own, which is left open; else one for this block, if it is to have any company."""
    if given is not None or not (how or config.peers):
        yield given
        return
    with Sharing(config, how, listener) as made:
        yield made


def named(peers: Iterable[str]) -> tuple[str, ...]:
    """Peers as a caller wrote them: one string is one peer."""
    return (peers,) if isinstance(peers, str) else tuple(peers)
