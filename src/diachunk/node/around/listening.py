"""Whom a node listens to for one manifest, out of all it knows; and which of them fetch the same."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from diachunk.manifest.statement import Shared, Statement
from diachunk.node.around.neighbours import Around, Neighbour
from diachunk.node.around.roster import How
from diachunk.node.around.subscriptions import Hears, Subscription
from diachunk.node.model import Address, Want
from diachunk.schedule.feeders import hash_of
from diachunk.schedule.members import Member

_USELESS_S = 30.0
_FEEDS = 1
"""The group (`_group`) of those that fetch the same and have an origin."""
_CROWD = 60
"""So much news a second from all nodes together is asked for: in a large swarm each tells less often. News that is a
second old costs one of sixteen machines 1% (diachunk.simulate)."""


class Listening:
    """On the loop.

    Attributes:
        to: those it listens to, by address.
        stated: it is about a statement, not a manifest.
    """

    def __init__(
        self, shared: Shared, around: Around, hears: Hears, dropped: Callable[[Address], None]
    ) -> None:
        """`dropped`: called with each that is listened to no more."""
        self.to: dict[Address, Subscription] = {}
        self.stated = isinstance(shared, Statement)
        self._manifest_id = shared.id
        self._around = around
        self._hears = hears
        self._dropped = dropped
        self._loop = asyncio.get_running_loop()
        self._hashes: dict[tuple[Address, bytes], int] = {}
        self._salt = secrets.token_bytes(16)
        self._stopping: set[asyncio.Task[None]] = set()

    def choose(self, bits: int) -> None:
        """Listens to as many as may be, those of most use first; to a node at one of its addresses."""
        around = self._around
        chosen = set(self._of_most_use()[: around.limits.neighbours_max])
        for address in [each for each in self.to if each not in chosen]:
            self._drop(address)
        for address in chosen:
            neighbour = around.neighbours[address]
            one = self.to.get(address)
            if one is not None and one.ended and not neighbour.lie:
                self._drop(address)  # another process answers there by now
                one = None
            if one is None and not neighbour.lie:
                one = Subscription(
                    neighbour,
                    self._manifest_id,
                    bits,
                    around.talker,
                    around.limits,
                    self._hears,
                    self._interval_s,
                    stated=self.stated,
                )
                self.to[address] = one
                one.start()
            elif one is not None and one.has is None and neighbour.reached and one.failures:
                one.poke()
            elif one is not None and one.by_chunks and self.wants_of(address) is not None:
                one.poke()  # it said that it fetches this: so it knows the manifest by now, or is gone

    def _of_most_use(self) -> list[Address]:
        """Named ones; then the feeders, to whom all have to listen; then the others, each node in an order of its own:
        were it the same everywhere, most of a hundred machines would be asked by nobody.
        """
        known_at = set(self._faces().values())
        groups = {
            address: self._group(neighbour)
            for address, neighbour in self._around.neighbours.items()
            if address in known_at or (neighbour.lie and address in self.to)
        }
        feeding = sorted((address for address in groups if groups[address] == _FEEDS), key=self._hash_of)
        feeders = set(feeding[: self._around.limits.feeders])
        return sorted(
            groups, key=lambda each: (groups[each], each not in feeders, self._hash_of(each, self._salt))
        )

    def _faces(self) -> dict[str, Address]:
        """At which of its addresses each node is known here: one that was named, else the lowest, so that all agree."""
        around = self._around
        faces: dict[str, Address] = {}
        for address, neighbour in sorted(
            around.neighbours.items(),
            key=lambda each: (around.how(each[0]) is not How.NAMED, ":" in each[0].host, each[0]),
        ):
            if not neighbour.lie and (neighbour.reached or address in self.to):
                faces.setdefault(neighbour.facts.node, address)
        return faces

    def _hash_of(self, address: Address, salt: bytes = b"") -> int:
        known = self._hashes.get((address, salt))
        if known is None:
            if len(self._hashes) >= 4 * self._around.limits.peers_known_max:
                self._hashes.clear()
            known = self._hashes[address, salt] = hash_of(salt or self._manifest_id, str(address))
        return known

    def _group(self, neighbour: Neighbour) -> int:
        """Of how much use it is to listen to it; 0 is most. Whom the user named always comes first."""
        one = self.to.get(neighbour.address)
        if one is not None and (one.ended or one.failures > 3):
            return 9
        if self._around.how(neighbour.address) is How.NAMED:
            return 0
        wants = self.wants_of(neighbour.address)
        holding = next((each for each in neighbour.facts.manifests if each.id == self._manifest_id), None)
        group = 4
        if wants is not None:
            group = _FEEDS if wants.feeds else 2
        elif (holding is not None and holding.complete) or (one is not None and one.complete):
            group = 2
        elif holding is not None or (one is not None and one.has is not None and any(one.has)):
            group = 3
        if one is None:
            return group
        # Who says it has something and gave nothing for long makes room for the others, if there are any.
        listened_s = self._loop.time() - one.since_s
        useless = one.has is not None and not neighbour.given.size_bytes and listened_s > _USELESS_S
        return group + 3 if useless and wants is None else group

    def _interval_s(self) -> float:
        return max(self._around.limits.have_interval_s, len(self.to) / _CROWD)

    def _drop(self, address: Address) -> None:
        one = self.to.pop(address)
        task = one.stop()
        if task is not None:
            self._stopping.add(task)
            task.add_done_callback(self._stopping.discard)
        self._dropped(address)

    # --- who takes part ------------------------------------------------------------------------------------

    def wants_of(self, address: Address) -> Want | None:
        """What it is after of this manifest, as far as it said so: here lately, or when it announced itself."""
        one = self.to.get(address)
        if one is not None and one.has is not None and not one.by_chunks:
            return None if one.wants is None else Want(self._manifest_id, one.wants, one.feeds)
        known = self._around.roster.get(address)
        wants = known.wants if known is not None else ()
        return next((each for each in wants if each.manifest_id == self._manifest_id), None)

    def members(self, own_parts: frozenset[str]) -> list[Member]:
        """Nodes that answered us and fetch the same; each once, whatever addresses it has."""
        found: list[Member] = []
        for address in self._faces().values():
            neighbour = self._around.neighbours[address]
            wants = self.wants_of(address)
            one = self.to.get(address)
            gone = not neighbour.reached or (one is not None and (one.ended or one.failures > 1))
            if wants is not None and wants.components and not gone:
                # What a statement is of is fetched whole, and everybody calls its parts something else.
                parts = own_parts if self.stated and own_parts else frozenset(wants.components)
                found.append(Member(str(address), parts, wants.feeds))
        return found

    def complaints(self) -> list[tuple[str, str]]:
        """(address, what it did) of those that were caught giving answers that no node gives."""
        return [(str(each.address), each.neighbour.lie) for each in self.to.values() if each.neighbour.lie]

    # --- the end -------------------------------------------------------------------------------------------

    async def close(self) -> None:
        for address in list(self.to):
            self._drop(address)
        if self._stopping:
            await asyncio.wait(set(self._stopping))
