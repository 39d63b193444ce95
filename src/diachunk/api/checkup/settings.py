"""Settings files and variables: each read by itself, so that one that is broken hides nothing of the others."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from diachunk.api.checkup.base import Area, Finding, Level, quoted
from diachunk.config import NOT_IN_VARIABLES, READERS, SITE_FILE, Config, load_config, user_file
from diachunk.errors import DiachunkError, UsageError

_NOWHERE = Path("/dev/null/nowhere")
_NO_USER_FILE = {"XDG_CONFIG_HOME": str(_NOWHERE)}
_NOT_SETTINGS = frozenset({"DIACHUNK_DEBUG"})


def read_settings(
    environment: Mapping[str, str], site_file: Path = SITE_FILE, project_file: Path | None = None
) -> tuple[Config | None, tuple[Finding, ...]]:
    """Reads the settings that work, and says which do not.

    Args:
        project_file: the `diachunk.toml` that counts here, or None.

    Returns:
        The settings without what is wrong in them (None if none are left), and what was found.
    """
    found: list[Finding] = []
    usable = dict(environment)
    if wrong := _alone(_NO_USER_FILE, site_file):
        found.append(_fault(wrong, _edit(site_file)))
        site_file = _NOWHERE
    user = user_file(environment)
    if user is not None and (wrong := _alone({"XDG_CONFIG_HOME": str(user.parent.parent)})):
        found.append(_fault(wrong, _edit(user)))
        usable |= _NO_USER_FILE
    if project_file is not None and (wrong := _alone(_NO_USER_FILE, project_file=project_file)):
        found.append(_fault(wrong, _edit(project_file)))
        project_file = None
    for variable, finding in _variables(environment):
        found.append(finding)
        usable.pop(variable, None)
    try:
        config = load_config(usable, site_file, project_file)
    except UsageError as error:  # right one by one, and wrong together: limits that contradict each other
        found.append(_fault(str(error), "diachunk config"))
        return None, tuple(found)
    except DiachunkError as error:
        cure = "export DIACHUNK_HOME=/var/tmp/diachunk  # or any directory of yours"
        found.append(Finding(Level.FAULT, Area.STORE, error.message, cure))
        return None, tuple(found)
    found += _overridden(usable, config, site_file, project_file)
    if not any(each.level is Level.FAULT for each in found):
        read = [str(each) for each in (site_file, user, project_file) if each is not None and each.exists()]
        found.append(Finding(Level.OK, Area.SETTINGS, f"settings: {', '.join(read) or 'the defaults'}"))
    return config, tuple(found)


def _fault(what: str, cure: str) -> Finding:
    return Finding(Level.FAULT, Area.SETTINGS, what, cure)


def _alone(
    environment: Mapping[str, str], site_file: Path = _NOWHERE, project_file: Path | None = None
) -> str:
    """What is wrong with one source of settings, without the others; "" if nothing."""
    try:
        load_config({"DIACHUNK_HOME": "/", **environment}, site_file, project_file)
    except DiachunkError as error:
        return str(error)
    return ""


def _edit(file: Path) -> str:
    if not os.access(file, os.R_OK):
        return f"{'' if os.access(file.parent, os.W_OK) else 'sudo '}chmod a+r {quoted(file)}"
    editor = "${EDITOR:-nano}" if os.access(file, os.W_OK) else "sudoedit"
    return f"{editor} {quoted(file)}"


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
    """Variables that do not work, or that nothing reads."""
    known = [f"DIACHUNK_{key.upper()}" for key in READERS if key not in NOT_IN_VARIABLES]
    for variable in sorted(each for each in environment if each.startswith("DIACHUNK_")):
        if variable in _NOT_SETTINGS:
            continue
        cure = f"unset {variable}"
        if variable not in known:
            close = difflib.get_close_matches(variable, known, 1)
            meant = f"; is {close[0]} meant?" if close else ""
            what = f"{variable}: nothing reads a variable of that name{meant}"
            yield variable, Finding(Level.WARNING, Area.SETTINGS, what, cure)
        elif wrong := _alone({**_NO_USER_FILE, variable: environment[variable]}):
            yield variable, _fault(wrong if variable in wrong else f"{variable}: {wrong}", cure)


def _overridden(
    usable: Mapping[str, str], config: Config, site_file: Path, project_file: Path | None
) -> Iterator[Finding]:
    """Variables that hide what a file says."""
    files_only = {name: text for name, text in usable.items() if not name.startswith("DIACHUNK_")}
    try:
        from_files = load_config(files_only, site_file, project_file).came_from
    except DiachunkError:  # no home but the variable's
        return
    for key, (name, _) in READERS.items():
        by, hidden = config.came_from.get(name, ""), from_files.get(name, "default")
        if by == f"DIACHUNK_{key.upper()}" and hidden != "default":
            what = f"{by} is set and hides what {hidden} says of {key}"
            yield Finding(Level.NOTE, Area.SETTINGS, what, f"unset {by}  # if the file is to count")
