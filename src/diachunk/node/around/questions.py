"""Questions to other nodes that somebody waits for: what they are, what a name stands for, a manifest. P2, P3, P4."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar
from urllib.parse import quote

from diachunk.digest import Digest, parse_digest
from diachunk.errors import ManifestError
from diachunk.limits import Limits
from diachunk.node.around.answers import (
    SMALL_BYTES_MAX,
    Malformed,
    NodeFacts,
    parse_node,
    parse_object,
    parse_refs,
)
from diachunk.node.around.neighbours import Neighbour
from diachunk.node.around.roster import How
from diachunk.node.around.talking import Talker, Unreached
from diachunk.node.model import Address

T = TypeVar("T")
_ASKED_MAX = 256
_IDS_MAX = 16
_AT_ONCE = 32


class Asks(Protocol):
    """The neighbourhood, as this sees it."""

    limits: Limits
    talker: Talker

    @property
    def neighbours(self) -> dict[Address, Neighbour]: ...
    def how(self, address: Address) -> How: ...
    async def settle(self, wait_s: float) -> None: ...


class Questions:
    def __init__(self, around: Asks) -> None:
        self._around = around

    async def node(self, address: Address) -> tuple[NodeFacts, float]:
        """What a node says of itself, and how long that took.

        Raises:
            Unreached: it does not answer as a node.
        """
        reply = await self._around.talker.ask(address, "/v1/node", limit_bytes=SMALL_BYTES_MAX)
        if reply.status == 401:
            raise Unreached(reply.refusal)
        if reply.status == 403:
            raise Unreached("does not let this machine in")
        if reply.status != 200:
            raise Unreached(f"is no node (status {reply.status})", lies=True)
        try:
            return parse_node(reply.body), reply.seconds
        except Malformed as error:
            raise Unreached(f"sent {error}", lies=True) from error

    async def refs(
        self, name: str, revision: str | None, wait_s: float
    ) -> list[tuple[Address, How, list[tuple[str, Digest]]]]:
        await self._around.settle(wait_s)
        return await self._of_all(lambda neighbour: self._refs_of(neighbour, name, revision))

    async def stated(self, found_by: Digest) -> list[tuple[Address, How, list[Digest]]]:
        """Manifests that claim to be of stated files, of all that can be reached (P20)."""
        return await self._of_all(lambda neighbour: self._stated_of(neighbour, found_by))

    async def _of_all(
        self, question: Callable[[Neighbour], Awaitable[list[T]]]
    ) -> list[tuple[Address, How, list[T]]]:
        turns = asyncio.Semaphore(_AT_ONCE)
        asked = self._reached()

        async def ask(neighbour: Neighbour) -> list[T]:
            async with turns:
                try:
                    async with asyncio.timeout(self._around.limits.connect_timeout_s):
                        return await question(neighbour)
                except TimeoutError:
                    return []  # One that hangs must not keep the others' answers waiting.

        found = await asyncio.gather(*(ask(each) for each in asked))
        return [
            (each.address, self._around.how(each.address), answers)
            for each, answers in zip(asked, found, strict=True)
            if answers
        ]

    async def _refs_of(
        self, neighbour: Neighbour, name: str, revision: str | None
    ) -> list[tuple[str, Digest]]:
        target = f"/v1/refs/{quote(name, safe='/')}"
        if revision is not None:
            target += f"?revision={quote(revision, safe='')}"
        return await self._list_of(neighbour, target, lambda text: parse_refs(text, name))

    async def _stated_of(self, neighbour: Neighbour, found_by: Digest) -> list[Digest]:
        return await self._list_of(neighbour, f"/v1/statements/{found_by.hex()}", parse_ids)

    async def _list_of(self, neighbour: Neighbour, target: str, parse: Callable[[bytes], list[T]]) -> list[T]:
        try:
            reply = await self._around.talker.ask(neighbour.address, target, limit_bytes=SMALL_BYTES_MAX)
            return parse(reply.body) if reply.status == 200 else []
        except Unreached:
            return []
        except Malformed as error:
            neighbour.lie = f"sent {error}"
            return []

    async def manifest(
        self, manifest_id: Digest, accept: Callable[[bytes], object] | None, wait_s: float
    ) -> bytes | None:
        """One node after the other, those first that say they have it; a wrong answer is the next one's turn."""
        if not any(_holds(each, manifest_id) for each in self._reached()):
            await self._around.settle(wait_s)
        asked = sorted(self._reached(), key=lambda each: not _holds(each, manifest_id))
        for neighbour in asked:
            text = await self._manifest_of(neighbour, manifest_id)
            if text is None:
                continue
            if accept is None:
                return text
            try:
                await asyncio.to_thread(accept, text)
            except ManifestError:
                neighbour.lie = f"sent another manifest than {manifest_id.hex()[:16]}"
                continue
            return text
        return None

    async def _manifest_of(self, neighbour: Neighbour, manifest_id: Digest) -> bytes | None:
        limit = self._around.limits.manifest_bytes_max
        target = f"/v1/manifests/{manifest_id.hex()}"
        try:
            reply = await self._around.talker.ask(neighbour.address, target, limit_bytes=limit, grows=True)
        except Unreached as error:
            if error.lies:
                neighbour.lie = error.detail
            return None
        return reply.body if reply.status == 200 else None

    def _reached(self) -> list[Neighbour]:
        """Those the user named first."""
        reached = [each for each in self._around.neighbours.values() if each.reached]
        return sorted(reached, key=lambda each: self._around.how(each.address))[:_ASKED_MAX]


def parse_ids(data: bytes) -> list[Digest]:
    """P20: ids of manifests.

    Raises:
        Malformed: it is no such answer.
    """
    ids = parse_object(data).get("manifests")
    if type(ids) is not list:
        raise Malformed("a list of manifests that is none")
    try:
        return [parse_digest(each) for each in ids[:_IDS_MAX]]
    except ValueError as error:
        raise Malformed("a manifest's id that is none") from error


def _holds(neighbour: Neighbour, manifest_id: Digest) -> bool:
    return any(each.id == manifest_id for each in neighbour.facts.manifests)
