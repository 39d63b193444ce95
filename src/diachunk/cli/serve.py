"""diachunk serve: the verb. A daemon: it says what it shares, then one line an event, until it is told to stop."""

from __future__ import annotations

import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from diachunk.cli.company import MaxUp, NoDiscover
from diachunk.cli.options import Json, Quiet, Verbose, rate_of
from diachunk.cli.talk import Talk
from diachunk.errors import DiachunkError

if TYPE_CHECKING:
    from diachunk.api.serving import Serving
    from diachunk.cli.serve_lines import Journal
    from diachunk.node.manager import ServiceManager

_LOOK_S = 1.0
_ALIVE_S = 30.0
_END_S = 10.0
_Host = Annotated[
    str, typer.Option("--host", metavar="H", help="Listen on this address of this machine alone.")
]
_Port = Annotated[int | None, typer.Option("--port", metavar="N", help="Listen on this port (8420).")]
_Peer = Annotated[
    list[str] | None,
    typer.Option("--peer", metavar="HOST[:PORT]", help="Know this machine from the beginning (again: more)."),
]
_Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="CIDR",
        help="Answer this network, besides this machine's own and the private ones (may be given again).",
    ),
]


def serve(
    host: _Host = "",
    port: _Port = None,
    peer: _Peer = None,
    allow: _Allow = None,
    max_up: MaxUp = None,
    no_discover: NoDiscover = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Share what is here with the machines of this network.

    Everything in the store is shared, also what comes while it runs, and what a fetch beside it has verified
    so far. Whoever asks has to be in one of this machine's networks, or in one that --allow names; where the
    settings name a token_file, they have to know the lab's secret.

    It runs until it is stopped: SIGTERM or Ctrl-C let uploads under way end for some seconds, a second one
    ends them. SIGHUP reads the settings again.
    """
    talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)
    max_up_bps = rate_of(max_up)

    def begin() -> Serving:
        import diachunk
        from diachunk.config import load_config

        config = load_config()
        return diachunk.serve(
            host=host,
            port=port,
            peers=tuple(peer or ()),
            allow=tuple(allow or ()),
            max_up_bps=max_up_bps,
            discover=config.discover and not no_discover,
            settings=config,
        )

    with _signals() as inbox:
        while _one_life(begin, talk, inbox):
            talk.say("reading the settings again")


def _one_life(begin: Callable[[], Serving], talk: Talk, inbox: Inbox) -> bool:
    """Serves until a signal comes. Returns whether it is to start anew."""
    from diachunk.cli.serve_lines import Journal
    from diachunk.node.manager import ServiceManager

    manager = ServiceManager()
    journal = Journal(talk)
    with journal.logging():
        serving = begin()
        again = False
        try:
            journal.opening(serving)
            manager.ready(journal.status(serving))
            again = _watch(serving, journal, manager, inbox)
        finally:
            if not again:
                manager.stopping()
            _end(serving, inbox, journal)
    return again


def _watch(serving: Serving, journal: Journal, manager: ServiceManager, inbox: Inbox) -> bool:
    """Returns True for SIGHUP, False for any other signal.

    Raises:
        DiachunkError: the node ended by itself.
    """
    alive_s = min(_ALIVE_S, manager.watchdog_s or _ALIVE_S)
    looks, every = 0, max(1, int(alive_s / _LOOK_S))
    while True:
        number = inbox.wait(_LOOK_S)
        if number == signal.SIGHUP and not inbox.hangs_up:
            if _settings_are_right(journal):
                return True
        elif number:
            journal.stopping(number)
            return False
        looks += 1
        if not serving.is_alive:
            raise DiachunkError(f"it ended by itself: {serving.failure or 'no reason known'}")
        journal.news(serving)
        if looks % every == 0 and serving.answers():
            manager.alive()
            manager.status(journal.status(serving))


def _settings_are_right(journal: Journal) -> bool:
    from diachunk.config import load_config

    try:
        load_config()
    except DiachunkError as error:
        journal.log("warning", f"SIGHUP: the settings stay as they were: {error.message}")
        return False
    return True


def _end(serving: Serving, inbox: Inbox, journal: Journal) -> None:
    """Stops; the next signal makes it stop at once."""
    closer = threading.Thread(target=serving.close, name="diachunk-close", daemon=True)
    closer.start()
    hurried = False
    for _ in range(int(_END_S / 0.05)):
        if not closer.is_alive():
            break
        if inbox.wait(0.05) and not hurried:
            hurried = True
            serving.hurry()
    journal.stopped()


class Inbox:
    """Signals of this process, waited for like anything else that arrives.

    Attributes:
        hangs_up: whether SIGHUP means that the terminal is gone: a person started this, not a service manager.
    """

    def __init__(self, receiving: socket.socket) -> None:
        self._receiving = receiving
        self.hangs_up = sys.stdin is not None and sys.stdin.isatty()

    def wait(self, timeout_s: float) -> int:
        """The number of the signal that came, 0 if none did in time."""
        ready, _, _ = select.select([self._receiving], [], [], timeout_s)
        return self._receiving.recv(1)[0] if ready else 0


@contextmanager
def _signals() -> Iterator[Inbox]:
    """Until the block is left, signals do nothing but arrive. What was ignored (nohup) stays so.

    signal(7): a handler in Python runs between any two of its instructions, also while a lock is held that it needs.
    """
    receiving, sending = socket.socketpair()
    sending.setblocking(False)
    wanted = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    before = {each: signal.getsignal(each) for each in wanted}
    old_fd = signal.set_wakeup_fd(sending.fileno(), warn_on_full_buffer=False)
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(each, lambda number, frame: None)
    try:
        yield Inbox(receiving)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        signal.set_wakeup_fd(old_fd)
        receiving.close()
        sending.close()
