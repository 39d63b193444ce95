"""diachunk config: the verb. It shows the effective settings; they are changed in the files that it names."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

from diachunk.cli import text
from diachunk.cli.options import Json, Verbose
from diachunk.cli.talk import Talk
from diachunk.errors import redact

if TYPE_CHECKING:
    from diachunk.config import Config


def config(as_json: Json = False, verbose: Verbose = False) -> None:
    """Show the settings, and where each comes from.

    With -v also every limit that has its default. In a directory with a diachunk.toml its settings count as well:
    they hold for `fetch` without TARGET and for `run`.
    """
    from diachunk.config import SITE_FILE, load_config, user_file
    from diachunk.project import find_project_file

    talk = Talk(as_json=as_json, verbose=verbose)
    settings = load_config(project_file=find_project_file())
    files = [path for path in (settings.project, user_file(os.environ), SITE_FILE) if path is not None]
    limits = dataclasses.asdict(settings.limits)
    rows = [
        (key, _written(key, value), settings.came_from.get(name, "default"))
        for name, (key, value) in _values(settings).items()
    ]
    rows += [
        (
            f"limits.{name}",
            f"{value:,}",
            settings.came_from.get(f"limits.{name}", "default"),
        )
        for name, value in limits.items()
        if talk.verbose or f"limits.{name}" in settings.came_from
    ]
    talk.result("\n".join(text.columns([("setting", "value", "from"), *rows])))
    for path in files:
        talk.result(f"{path}{'' if path.exists() else ' (not there)'}")
    talk.emit(
        "done",
        settings={
            key: {"value": value, "from": settings.came_from.get(name, "default")}
            for name, (key, value) in _values(settings).items()
        },
        limits=limits,
        limits_from=settings.came_from.get("limits", "default"),
        files=[{"path": str(path), "exists": path.exists()} for path in files],
    )


def _values(settings: Config) -> dict[str, tuple[str, Any]]:
    """Field -> (key in the file, value), without credentials."""
    return {
        "home": ("home", str(settings.home)),
        "stores": ("stores", [str(each) for each in settings.stores]),
        "origins": ("origins", [redact(each) for each in settings.origins]),
        "peers": ("peers", list(settings.peers)),
        "checkpoints": ("checkpoints", [redact(each.target) for each in settings.checkpoints]),
        "places": ("places", None if settings.places is None else list(settings.places)),
        "pins": ("pins", dict(settings.pins)),
        "max_down_bps": ("max_down", settings.max_down_bps),
        "max_up_bps": ("max_up", settings.max_up_bps),
        "share": ("share", settings.share),
        "discover": ("discover", settings.discover),
        "port": ("port", settings.port),
        "allow": ("allow", list(settings.allow)),
        "linger_s": ("linger", settings.linger_s),
        # The files' names alone: what is in them is shown nowhere.
        "token_file": ("token_file", None if settings.token_file is None else str(settings.token_file)),
        "allowed_signers": (
            "allowed_signers",
            None if settings.allowed_signers is None else str(settings.allowed_signers),
        ),
        "require_signed": ("require_signed", settings.require_signed),
    }


_UNSET = {
    "places": "as each checkpoint says",
    "linger": "until the others are done, limits.linger_s at most",
    "token_file": "none",
    "allowed_signers": "nobody",
}


def _written(key: str, value: Any) -> str:
    if value is None:
        return _UNSET.get(key, "no cap")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in ("max_down", "max_up"):
        return text.rate(value)
    if key == "linger":
        return f"{value:g} s"
    if isinstance(value, dict):
        return ", ".join(f"{name} = {digest[:16]}…" for name, digest in value.items()) or "none"
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
