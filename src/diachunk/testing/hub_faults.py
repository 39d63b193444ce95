"""What goes wrong at an emulated Hub, and with which requests: `faults` says what can, rules say when."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase

from diachunk.testing.faults import Close, Drip, Fault, FlipInFile, StallBeforeHeader, Status
from diachunk.testing.reply import Reply, Request


class Part(Enum):
    """Which of a Hub's answers."""

    API = "/api/..., metadata in JSON"
    RESOLVE = (
        "/REPO/resolve/..., HEAD and GET: where a file's headers, or its bytes if it is small, come from"
    )
    CDN = "the second host, where LFS files are redirected to"
    BYTES = "a GET that is answered with bytes of a file, on either host"


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault, and the requests that meet it.

    Attributes:
        of: a pattern (fnmatch) for the file's path in its repository or, at the API, for the path asked for.
        times: how many requests yet; None is all of them.
        skip: how many go well before.
    """

    fault: Fault
    part: Part
    of: str = "*"
    times: int | None = None
    skip: int = 0

    @property
    def after_one(self) -> Rule | None:
        """What is left of it once a request has met it; None if that was the last."""
        if self.skip:
            return replace(self, skip=self.skip - 1)
        if self.times is None:
            return self
        return replace(self, times=self.times - 1) if self.times > 1 else None

    def concerns(self, part: Part, subject: str, request: Request, reply: Reply) -> bool:
        if self.part is Part.BYTES:
            if part is Part.API or request.method != "GET" or reply.status not in (200, 206):
                return False
        elif self.part is not part:
            return False
        return fnmatchcase(subject, self.of)


class Rules:
    """The rules in force, in the order in which they were made; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def clear(self) -> None:
        """From now on all goes well."""
        with self._lock:
            self._rules.clear()

    @property
    def left(self) -> tuple[Rule, ...]:
        """The rules that are not used up."""
        with self._lock:
            return tuple(self._rules)

    def bend(self, part: Part, subject: str, request: Request, reply: Reply) -> Reply:
        """Applies every rule that concerns this request, each to what the one before it left.

        What a fault would not change (the damaged byte lies elsewhere) does not count against the rule.
        """
        with self._lock:
            kept = []
            for rule in self._rules:
                left: Rule | None = rule
                if rule.concerns(part, subject, request, reply):
                    bent = rule.fault.apply(request, reply)
                    if bent != reply:
                        left = rule.after_one
                        reply = reply if rule.skip else bent
                if left is not None:
                    kept.append(left)
            self._rules = kept
        return reply


class Trouble:
    """What can be made to go wrong, in words: `hub.cut_off("*.safetensors", after_bytes=1000, times=2)`.

    Attributes:
        rules: the faults in force; `rules.clear()` ends them.
    """

    def __init__(self) -> None:
        self.rules = Rules()

    def fail(
        self, part: Part, fault: Fault, *, of: str = "*", times: int | None = None, skip: int = 0
    ) -> None:
        """Any fault, for `times` requests (None: all) of that part after the next `skip`."""
        self.rules.add(Rule(fault, part, of, times, skip))

    def rate_limit(self, times: int, *, retry_after_s: int = 1, part: Part = Part.API, of: str = "*") -> None:
        """The next requests get 429."""
        limit = f'"{part.name.lower()}";r=0;t={retry_after_s}'
        headers = {"Retry-After": str(retry_after_s), "RateLimit": limit, "Content-Type": "application/json"}
        self.fail(part, Status(429, headers, b'{"error": "Too many requests"}'), of=of, times=times)

    def cut_off(self, of: str, *, after_bytes: int, times: int | None = 1) -> None:
        """The connection closes so many bytes into an answer."""
        self.fail(Part.BYTES, Close(after_bytes), of=of, times=times)

    def damage(self, of: str, *, at_byte: int, times: int | None = None) -> None:
        """One byte of the file is sent wrong; what is stated stays right."""
        self.fail(Part.BYTES, FlipInFile(at_byte), of=of, times=times)

    def slow_down(self, bytes_per_s: int, *, of: str = "*", times: int | None = None) -> None:
        """Each answer flows at this rate."""
        self.fail(Part.BYTES, Drip(bytes_per_s), of=of, times=times)

    def hang(self, part: Part, *, of: str = "*", times: int | None = None) -> None:
        """Requests are taken, and nothing comes."""
        self.fail(part, StallBeforeHeader(), of=of, times=times)
