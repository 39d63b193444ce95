"""The entry point: the list of verbs, and what becomes of errors. Verbs are one file each.

Nothing here or at the head of a verb's file imports the library: `diachunk --help` has to be instant.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup, TyperOption

from diachunk.cli import (
    adopt,
    config,
    diff,
    doctor,
    fetch,
    gc,
    load,
    ls,
    peers,
    place,
    publish,
    rm,
    serve,
    show,
    verify,
)
from diachunk.cli import run as run_verb
from diachunk.cli.options import HELP_NAMES, Command
from diachunk.cli.stopping import stop_on_signals
from diachunk.cli.talk import OutputClosed, report_error, to_stderr
from diachunk.errors import DiachunkError, Interrupted
from diachunk.version import __version__

GROUPS = {
    "daily": ("fetch", "run", "load", "verify", "ls"),
    "sharing": ("serve", "peers", "publish"),
    "integrate": ("place", "adopt", "show", "diff", "config"),
    "care": ("doctor", "rm", "gc"),
}
MEANT = {
    **dict.fromkeys(("get", "download", "pull", "install", "update", "clone"), "fetch"),
    **dict.fromkeys(("remove", "delete", "uninstall", "undo"), "rm"),
    **dict.fromkeys(("list", "status"), "ls"),
    **dict.fromkeys(("check", "repair", "fsck", "scrub"), "verify"),
    **dict.fromkeys(("clean", "prune"), "gc"),
    **dict.fromkeys(("share", "seed"), "serve"),
    **dict.fromkeys(("info", "inspect"), "show"),
    "settings": "config",
    "link": "place",
    "help": "--help",
    "version": "--version",
}
"""What other tools call it. By its spelling alone `download` would be taken for `load`."""
_EXIT_UNEXPECTED = 1
_EXIT_USAGE = 2
# typer carries its own copy of click or imports it, depending on its version
_UsageException: type[Exception] = typer.BadParameter.__mro__[2]


class Verbs(TyperGroup):
    """The verbs in groups instead of one list."""

    def get_params(self, ctx: Any) -> list[Any]:
        # The help of the whole tool is one screen: these are in the README.
        params = super().get_params(ctx)
        for param in params:
            if param.name in ("install_completion", "show_completion") and isinstance(param, TyperOption):
                param.hidden = True
        return params

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for names in GROUPS.values() for name in names]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _UsageException as error:
            if args and args[0] in MEANT:
                told: Any = error
                told.message = f"No such command {args[0]!r}. Did you mean {MEANT[args[0]]!r}?"
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        # As a section of their own the two options would push the verbs off the screen.
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("diachunk COMMAND -h explains one; --version; -h, --help: this page.")
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        indent = max(map(len, GROUPS)) + 2
        rows = []
        for group, names in GROUPS.items():
            for number, name in enumerate(names):
                command = self.get_command(ctx, name)
                assert command is not None
                heading = group if number == 0 else ""
                rows.append((f"{heading:{indent}}{name}", command.get_short_help_str(60)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        # Newer versions of typer turn these into exit codes without a word.
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted("stopped") from None
        except BrokenPipeError as error:
            raise OutputClosed from error


app = typer.Typer(
    cls=Verbs,
    name="diachunk",
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_NAMES},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"diachunk {__version__}")
        raise typer.Exit


@app.callback()
def diachunk(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Tracebacks with errors (or DIACHUNK_DEBUG=1).", hidden=True)
    ] = False,
) -> None:
    """Gets ML checkpoints onto machines, and proves that they are right."""


for _verb in (
    fetch.fetch,
    verify.verify,
    load.load,
    ls.ls,
    serve.serve,
    peers.peers,
    publish.publish,
    place.place,
    adopt.adopt,
    show.show,
    diff.diff,
    config.config,
    doctor.doctor,
    rm.rm,
    gc.gc,
):
    app.command(_verb.__name__, cls=Command, no_args_is_help=_verb is publish.publish)(_verb)
# What follows the program's name is the program's.
app.command("run", cls=Command, context_settings={"allow_interspersed_args": False})(run_verb.run)


def run() -> NoReturn:
    """Runs the command line of this process and exits."""
    arguments = sys.argv[1:]
    ours = arguments[: _own_words(arguments)]
    others = arguments[len(ours) :]
    debug = os.environ.get("DIACHUNK_DEBUG", "") not in ("", "0")
    if "--debug" in ours:
        # taken wherever it stands, so that it can simply be added to the end of a line that failed
        debug = True
        ours.remove("--debug")
    as_json = "--json" in ours
    stop_on_signals(as_json=as_json)
    code = _run(ours + others, debug=debug, as_json=as_json)
    try:
        sys.stdout.flush()
    except OSError:
        code = code or _EXIT_UNEXPECTED
        _let_go_of_stdout()
    sys.exit(code)


def _own_words(words: list[str]) -> int:
    """How many words are ours: what `run` starts has options of its own."""
    end = words.index("--") if "--" in words else len(words)
    first = next((number for number in range(end) if not words[number].startswith("-")), end)
    if first < end and words[first] == "run":
        start = first + 1
        end = next((number for number in range(start, end) if not words[number].startswith("-")), end)
    return end


def _run(arguments: list[str], *, debug: bool, as_json: bool) -> int:
    try:
        code = typer.main.get_command(app)(args=arguments, prog_name="diachunk", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except OutputClosed:
        _let_go_of_stdout()
        return _EXIT_UNEXPECTED
    except Exception as error:  # noqa: BLE001 - the last place where an error can become a line for a person
        if debug:
            traceback.print_exc()
        try:
            return _report(error, as_json=as_json)
        except OutputClosed:
            _let_go_of_stdout()
            return _EXIT_UNEXPECTED
    except KeyboardInterrupt:
        report_error(Interrupted("stopped"), as_json=as_json)
        return Interrupted.exit_code


def _report(error: Exception, *, as_json: bool) -> int:
    """Tells of an error; returns the exit code."""
    if isinstance(error, typer.Abort):
        error = Interrupted("stopped")
    elif isinstance(error, _UsageException):
        if not as_json:
            _show_usage(error)
            return _EXIT_USAGE
        told = DiachunkError(str(getattr(error, "message", error)))
        told.exit_code = _EXIT_USAGE
        error = told
    elif not isinstance(error, DiachunkError):
        error = DiachunkError(
            f"unexpected: {type(error).__name__}: {error}; run with --debug for the traceback"
        )
    assert isinstance(error, DiachunkError)
    report_error(error, as_json=as_json)
    return error.exit_code


def _show_usage(error: Any) -> None:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        to_stderr(message)
        return
    context = getattr(error, "ctx", None)
    hint = f"\n  see `{context.command_path} --help`" if context is not None else ""
    to_stderr(f"diachunk: {message[:1].lower()}{message[1:].rstrip('.')}{hint}")


def _let_go_of_stdout() -> None:
    """Python flushes stdout once more at its end; a closed pipe must not make that an error message."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
