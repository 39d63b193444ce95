"""Settings: flag > DIACHUNK_* > ./diachunk.toml > $XDG_CONFIG_HOME/diachunk/config.toml > /etc/diachunk/... > default.

The project file `./diachunk.toml` counts only for calls that ask for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diachunk import project
from diachunk.errors import StoreError, UsageError
from diachunk.limits import Limits
from diachunk.project import SettingsFile, WantedCheckpoint
from diachunk.values import flag, networks, parse_toml, path_of, peers, port, read_text, string, strings

SITE_FILE = Path("/etc/diachunk/config.toml")
_NO_FILE = SettingsFile()
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*(?:([kmgt])(i?))?(b|bit)?(/s|ps)?", re.IGNORECASE | re.ASCII)
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(s|m|h|d|w)?", re.IGNORECASE | re.ASCII)
_AGE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """Reads bytes: "500M", "1.5GiB"; bits: "100Mbit", "100Mbps". K, M, G, T: powers of 1000; Ki: of 1024.

    Raises:
        UsageError: anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r:.60} is not a size or rate", hint="such as 10M, 1.5GiB or 100Mbit")
    number, unit, binary, kind, per_second = match.groups(default="")
    value = float(number) * (1024 if binary else 1000) ** _UNITS[unit.lower()]
    bits = kind.lower() == "bit" or (kind == "b" and per_second.lower() == "ps")
    return int(value / 8 if bits else value)


def parse_rate(text: str) -> int:
    """Reads bytes a second, as parse_size; at least 1 kB/s, so that a slip does not look like a hang."""
    rate = parse_size(text)
    if rate < 1000:
        raise UsageError(f"{text!r:.60}: under 1 kB a second", hint="such as 10M or 100Mbit")
    return rate


def parse_duration(text: str) -> float:
    """Reads seconds: "90", "30s", "12h", "30d".

    Raises:
        UsageError: anything else.
    """
    match = _AGE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"{text!r:.60} is not a duration", hint="such as 30s, 12h or 30d")
    return float(match[1]) * _AGE_UNITS[(match[2] or "s").lower()]


@dataclass(frozen=True, slots=True)
class Config:
    """Effective settings. `came_from` says for each field, and each limit, which file or variable set it.

    Attributes:
        peers: HOST[:PORT] or dns:NAME[:PORT]: machines that the user named, and so trusts with what a name means.
        places: kinds and absolute directories; None where nothing says.
        share, discover, port, allow, linger_s: what a fetch or `serve` shows of this machine, where, to whom
            (CIDR blocks besides its own networks), and how long a fetch stays for others.
        token_file: holds the lab's secret; allowed_signers: see ssh-keygen(1), "ALLOWED SIGNERS".
        require_signed: refuse every manifest that none of them signed.
        project: the project file that was read, or None.
    """

    home: Path
    stores: tuple[Path, ...] = ()
    origins: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    checkpoints: tuple[WantedCheckpoint, ...] = ()
    places: tuple[str, ...] | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    max_down_bps: int | None = None
    max_up_bps: int | None = None
    share: bool = True
    discover: bool = True
    port: int = 8420
    allow: tuple[str, ...] = ()
    linger_s: float | None = None
    token_file: Path | None = None
    allowed_signers: Path | None = None
    require_signed: bool = False
    limits: Limits = field(default_factory=Limits)
    came_from: Mapping[str, str] = field(default_factory=dict)
    project: Path | None = None


def _pins(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(
        isinstance(each, str) and re.fullmatch("[0-9a-f]{64}", each) for each in value.values()
    ):
        raise UsageError(f"{key}: a table of NAME@REV = <64 hex digits> is wanted")
    return {name if "@" in name else f"{name}@main": each for name, each in value.items()}


def _limits(key: str, value: Any) -> Limits:
    if not isinstance(value, dict):
        raise UsageError(f"{key}: a table is wanted")
    return Limits.from_mapping(value)


def _rate(key: str, text: str) -> int:
    try:
        return parse_rate(text)
    except UsageError as error:
        raise UsageError(f"{key}: {error.message}", hint=error.hint) from error


READERS: Mapping[str, tuple[str, Callable[[str, Any, SettingsFile], Any]]] = {
    "home": ("home", lambda key, value, _: path_of(key, string(key, value))),
    "stores": ("stores", lambda key, value, _: tuple(path_of(key, each) for each in strings(key, value))),
    "origins": ("origins", lambda key, value, _: strings(key, value)),
    "peers": ("peers", lambda key, value, _: peers(key, value)),
    "checkpoints": ("checkpoints", project.checkpoints),
    "places": ("places", project.places),
    "pins": ("pins", lambda key, value, _: _pins(key, value)),
    "max_down": ("max_down_bps", lambda key, value, _: _rate(key, string(key, value))),
    "max_up": ("max_up_bps", lambda key, value, _: _rate(key, string(key, value))),
    "share": ("share", lambda key, value, _: flag(key, value)),
    "discover": ("discover", lambda key, value, _: flag(key, value)),
    "port": ("port", lambda key, value, _: port(key, value)),
    "allow": ("allow", lambda key, value, _: networks(key, value)),
    "linger": ("linger_s", lambda key, value, _: parse_duration(string(key, value))),
    "token_file": ("token_file", lambda key, value, _: path_of(key, string(key, value))),
    "allowed_signers": ("allowed_signers", lambda key, value, _: path_of(key, string(key, value))),
    "require_signed": ("require_signed", lambda key, value, _: flag(key, value)),
    "limits": ("limits", lambda key, value, _: _limits(key, value)),
}
"""Key in a file -> field of Config, and what reads its value: of a variable, the variable's name is the key."""
NOT_IN_VARIABLES = frozenset({"checkpoints", "pins", "limits"})
"""Keys that no DIACHUNK_* variable stands for."""
# A comma may be part of a URL, unless another URL or a path follows it.
_BETWEEN_URLS = re.compile(r"(?:\s|,(?=[\s,]|\Z|[A-Za-z][A-Za-z0-9+.-]{0,30}://|\.{0,2}/))+")
_SPLITS: Mapping[str, Callable[[str], list[str]]] = {
    "stores": lambda text: text.split(os.pathsep),
    "origins": _BETWEEN_URLS.split,
    "peers": lambda text: re.split(r"[\s,]+", text),
    "allow": lambda text: re.split(r"[\s,]+", text),
    "places": lambda text: [each.strip() for each in text.split(",")],
}


def parse_config(text: str, label: str, file: SettingsFile = _NO_FILE) -> dict[str, Any]:
    """Reads a config file's text into fields of Config.

    Args:
        label: the file's name, for messages.
        file: where it lies and what it is; by default a config file in the working directory.

    Raises:
        UsageError: not TOML, an unknown key, or a value of the wrong kind; names the file and the key.
    """
    return _read_table(parse_toml(text, label), label, file)


def _read_table(table: Mapping[str, Any], label: str, file: SettingsFile) -> dict[str, Any]:
    if file.is_project:
        project.refuse_in_project(table, label)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in READERS:
            raise UsageError(f"{label}: no such setting: {key!r:.60}", hint=f"known: {', '.join(READERS)}")
        name, read = READERS[key]
        try:
            values[name] = read(key, value, file)
        except UsageError as error:
            raise UsageError(f"{label}: {error.message}", hint=error.hint) from error
    return values


def user_file(environment: Mapping[str, str]) -> Path | None:
    """Where the user's config file belongs; None when there is no home to put it in."""
    base = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "diachunk" / "config.toml" if not base.startswith("~") else None


def default_home() -> Path:
    """The platform's cache directory for this user.

    Raises:
        StoreError: there is no home directory.
    """
    import platformdirs

    try:
        home = platformdirs.user_cache_dir("diachunk", appauthor=False)
    except RuntimeError:  # newer versions refuse instead of answering with a "~"
        home = "~"
    if home.startswith("~") or not os.path.isabs(home):
        raise StoreError("no home directory to keep a store in", hint="set DIACHUNK_HOME to a directory")
    return Path(home)


def load_config(
    environment: Mapping[str, str] = os.environ,
    site_file: Path = SITE_FILE,
    project_file: Path | None = None,
) -> Config:
    """Merges all sources of settings; limits one by one.

    Args:
        project_file: a `diachunk.toml`, for calls that use one.

    Raises:
        UsageError: a file or variable is wrong; names it.
        StoreError: there is nowhere to put a store.
    """
    values: dict[str, Any] = {}
    came_from: dict[str, str] = {}
    limits: dict[str, Any] = {}
    for path in (site_file, user_file(environment), project_file):
        text = read_text(path) if path is not None else None
        if path is None or text is None:
            continue
        label, file = str(path), SettingsFile(Path(os.path.abspath(path.parent)), path is project_file)
        table = parse_toml(text, label)
        for name, value in _read_table(table, label, file).items():
            values[name], came_from[name] = value, label
        for name, value in table.get("limits", {}).items():
            limits[name], came_from[f"limits.{name}"] = value, label
    if limits:
        try:
            values["limits"] = Limits.from_mapping(limits)
        except UsageError as error:
            raise UsageError(f"{came_from['limits']}: {error.message}", hint=error.hint) from error
    _read_variables(environment, values, came_from)
    if "home" not in values:
        values["home"], came_from["home"] = default_home(), "default"
    values["home"] = Path(os.path.abspath(values["home"]))
    return Config(**values, came_from=came_from, project=project_file)


def _read_variables(
    environment: Mapping[str, str], values: dict[str, Any], came_from: dict[str, str]
) -> None:
    for key, (name, read) in READERS.items():
        variable = f"DIACHUNK_{key.upper()}"
        text = environment.get(variable)
        if text and key not in NOT_IN_VARIABLES:
            split = _SPLITS.get(key)
            given: Any = [each for each in split(text) if each] if split else text
            values[name], came_from[name] = read(variable, given, _NO_FILE), variable
