"""diachunk run: the verb. It makes the set complete, then becomes the program."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from diachunk.cli.options import Quiet, Verbose
from diachunk.cli.talk import Talk, stopping_means
from diachunk.errors import DiachunkError, UsageError

if TYPE_CHECKING:
    from diachunk.api.sharing import Sociable
    from diachunk.config import Config

NOT_EXECUTABLE = 126
NOT_FOUND = 127
OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
"""What keeps hub clients from the network; the second is for those that do not know the first."""

_KEPT = "the program was not started; what is verified is kept: run the same again to resume"


class CannotStart(DiachunkError):
    """The program is not there, or is none. Exit codes are those of env(1)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(
    program: Annotated[list[str] | None, typer.Argument(metavar="PROGRAM [ARGS]", hidden=True)] = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Exactly what diachunk.lock says, or fail; never writes it.")
    ] = False,
    no_fetch: Annotated[
        bool, typer.Option("--no-fetch", help="Fetch nothing: start the program with what is here.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Start a program with all its checkpoints here, offline.

    For example: diachunk run -- python app.py --port 7860

    Fetches what ./diachunk.toml or your config names, shows it where hub clients and other programs look
    for it, then becomes PROGRAM, with HF_HUB_OFFLINE=1 in its environment: nothing is left to be pulled
    silently. Exit code and signals are the program's own.
    """
    if not program:
        raise UsageError("name the program to run", hint="diachunk run -- python app.py")
    path = find_program(program[0], os.environ)
    talk = Talk(quiet=quiet, verbose=verbose)
    with stopping_means(_KEPT):
        _prepare(talk, locked=locked, no_fetch=no_fetch)
    become(path, program, {**os.environ, **OFFLINE})


def _prepare(talk: Talk, *, locked: bool, no_fetch: bool) -> None:
    """Makes the set complete and placed; with `no_fetch`, as much of it as is here."""
    from diachunk.api.sets.checkpoint_set import NothingNamed
    from diachunk.api.sets.locking import Locking
    from diachunk.api.sets.preloader import Preloader
    from diachunk.cli import text
    from diachunk.cli.asking import plainly
    from diachunk.cli.checkpoint_set import SetFetch, tell_how

    try:
        preloader = Preloader(
            locking=Locking.EXACT if locked else Locking.KEEP, company=_company, listener=plainly(talk)
        )
    except NothingNamed as error:
        if no_fetch:
            return
        tell_how(talk, UsageError(error.message))
        raise typer.Exit(error.exit_code) from error
    with preloader:
        fetching = SetFetch(talk, preloader, hints=True, results=False)
        plan = fetching.plan()
        if no_fetch:
            fetching.place_what_is_here(plan)
            return
        if not plan.complete:
            preloader.sharing.open()
            fetching.announce(plan)
        fetching.carry_out(plan)
    if plan.complete:
        count = text.count(len(plan.checkpoints), "checkpoint")
        talk.say(f"{count}, {text.size(plan.total_bytes)}: all here")


def _company(config: Config) -> Sociable:
    """As a fetch, by the settings; but the program is not kept waiting for other machines."""
    from diachunk.api.sharing import Sociable

    return Sociable(share=config.share, discover=config.discover, linger_s=0.0)


def find_program(name: str, environment: Mapping[str, str]) -> str:
    """The file that a program's name stands for, by PATH if the name is no path (execvp(3)).

    Raises:
        CannotStart: there is none (127), or it cannot be executed (126).
    """
    if not name or "\0" in name:
        raise CannotStart(f"{name!r:.60}: no such program", NOT_FOUND)
    directories = [""] if "/" in name else environment.get("PATH", os.defpath).split(os.pathsep)
    found = ""
    for directory in directories:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
        if not found and os.path.lexists(path) and ("/" in name or os.path.isfile(path)):
            found = path
    if not found:
        raise CannotStart(f"{name}: no such program", NOT_FOUND)
    kind = "is a directory" if _is_directory(found) else "is not executable"
    raise CannotStart(f"{found}: {kind}", NOT_EXECUTABLE)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def become(path: str, arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Replaces this process by the program.

    Raises:
        CannotStart: the system would not.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these from its start, and what is ignored stays so in the program.
    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        try:
            os.execve(path, arguments, environment)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without its first line: execvp(3) gives it to the shell.
            os.execve("/bin/sh", [arguments[0], path, *arguments[1:]], environment)
    except OSError as error:
        code = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
        raise CannotStart(f"cannot start {path}: {error.strerror}", code) from error
