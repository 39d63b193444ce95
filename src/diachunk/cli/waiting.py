"""What is said while a server is asked what there is: nothing can be drawn yet, and silence looks like a hang."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from diachunk.cli import text
from diachunk.cli.talk import Talk

_FIRST_S = 2.0
_AGAIN_S = 10.0
hushed = threading.Event()
"""Set while a person is asked something: they know what is waited for."""


@contextmanager
def saying_who_is_asked(talk: Talk, targets: tuple[str, ...], *, company: bool = False) -> Iterator[None]:
    """Says every ten seconds for whom the block waits, the first time after two.

    Args:
        company: whether other machines are asked.
    """
    over = threading.Event()
    thread = threading.Thread(target=_say, args=(talk, _who_of(targets, company), over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)


def _say(talk: Talk, who: Callable[[], str], over: threading.Event) -> None:
    started_at = time.monotonic()
    pause_s = _FIRST_S
    while not over.wait(pause_s):
        pause_s = _AGAIN_S
        if hushed.is_set():
            continue
        line = f"{who()} for {text.duration(time.monotonic() - started_at)}; Ctrl-C stops it, nothing is lost"
        talk.say(line)
        talk.emit("notice", text=line)


def _who_of(targets: tuple[str, ...], company: bool) -> Callable[[], str]:
    return lambda: _who(targets, company)


def _who(targets: tuple[str, ...], company: bool) -> str:
    # Its library is loaded when it is asked, and only then.
    if "huggingface_hub" in sys.modules:
        from diachunk.sources.hub_access import hub_access

        return f"waiting for the Hub ({hub_access().endpoint.partition('://')[2]})"
    if any(each.startswith(("http://", "https://")) for each in targets):
        return "waiting for the manifest's server"
    return "asking the machines of this network" if company else "looking at what is here"
