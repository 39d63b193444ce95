"""A manifest's swarm, also while the node's libraries are still being loaded: sessions begin and end meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from diachunk.digest import Digest
from diachunk.transfer.company import Company

if TYPE_CHECKING:
    from diachunk.node.around.joining import Joined


class Boarding:
    """A `transfer.company.Swarm`. Called from sessions' threads, and from the loop's once it is up."""

    def __init__(
        self,
        join: Callable[[Callable[[Joined | None], None]], None],
        manifest_id: Digest,
        wake: Callable[[], None],
    ) -> None:
        """Args:
        join: joins the swarm once the node is up, and hands it over; None if it never will be up.
        wake: the node is needed now.
        """
        self.manifest_id = manifest_id
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: list[Company] = []
        self._joined: Joined | None = None
        self._alone = False
        join(self._meet)

    def _meet(self, joined: Joined | None) -> None:
        with self._lock:
            self._joined, self._alone = joined, joined is None
            waiting, self._waiting = self._waiting, []
            for company in waiting:
                self._begin(company)

    def _begin(self, company: Company) -> None:
        if self._joined is not None:
            self._joined.began(company)
        else:
            company.expects_more(False)

    def began(self, company: Company) -> None:
        self._wake()
        with self._lock:
            if self._joined is None and not self._alone:
                self._waiting.append(company)
            else:
                self._begin(company)

    def ended(self, company: Company) -> None:
        with self._lock:
            if company in self._waiting:
                self._waiting.remove(company)
            elif self._joined is not None:
                self._joined.ended(company)
