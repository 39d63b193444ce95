"""Settings: each file and variable that is wrong is named by itself, and doctor works all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from diachunk.api.checkup.settings import read_settings
from fixtures.doctored import call, cured, diagnose, examined
from fixtures.settings import write_config
from fixtures.users import User, need_users


def config_file(user: Path) -> Path:
    return user / "config" / "diachunk" / "config.toml"


def editor(tmp_path: Path, text: str) -> str:
    """Stands for a person who corrects the file that the cure opens."""
    path = tmp_path / "editor"
    path.write_text(f"#!/bin/sh\ncat > \"$1\" <<'END'\n{text}\nEND\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("origins = [", "not TOML"),
        ('orgins = ["https://example.org"]', "no such setting: 'orgins'"),
        ("[limits]\nlanes = -1", "limits.lanes"),
        ("[limits]\nlane = 1", "limits.lane: no such limit"),
        ('max_down = "fast"', "'fast' is not a size or rate"),
        ("\x00", "not TOML"),
    ],
)
def test_a_config_file_that_is_wrong(user: Path, tmp_path: Path, text: str, named: str) -> None:
    write_config(user, {}, "")
    config_file(user).write_text(text)
    found = diagnose("--offline")
    assert found.exit_code == 2
    finding = found.the(named, "fault")
    assert str(config_file(user)) in finding["what"]
    assert [each for each in found.findings if each["area"] == "store"], "the rest was looked at, too"
    assert cured(finding, "--offline", EDITOR=editor(tmp_path, "")).worse == []


def test_a_project_file_that_is_wrong(user: Path, tmp_path: Path) -> None:
    (user / "diachunk.toml").write_text('home = "/elsewhere"\n')
    finding = diagnose("--offline").the("diachunk.toml", "fault")
    assert cured(finding, "--offline", EDITOR=editor(tmp_path, "checkpoints = []")).worse == []


def test_two_files_that_are_wrong_are_both_named(user: Path) -> None:
    write_config(user, {}, "lanes = 3")
    (user / "diachunk.toml").write_text("{")
    found = diagnose("--offline")
    assert len([each for each in found.findings if each["level"] == "fault"]) == 2


def test_a_site_file_that_is_wrong_leaves_the_others(user: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.toml"
    site.write_text("[")
    write_config(user, {}, 'origins = ["https://example.org"]')
    config, found = read_settings({"XDG_CONFIG_HOME": str(user / "config"), "HOME": str(user)}, site)
    assert [each for each in found if each.level == "fault" and str(site) in each.what]
    assert config is not None
    assert config.origins == ("https://example.org",)


@pytest.mark.parametrize(
    ("variable", "value"), [("DIACHUNK_MAX_DOWN", "x"), ("DIACHUNK_PEERS", "/"), ("DIACHUNK_PLACES", "moon")]
)
def test_a_variable_that_is_wrong(variable: str, value: str) -> None:
    finding = diagnose("--offline", **{variable: value}).the(variable, "fault")
    assert finding["cure"] == f"unset {variable}"
    assert cured(finding, "--offline", **{variable: value}).worse == []


def test_a_variable_that_nothing_reads_says_which_may_be_meant() -> None:
    found = diagnose("--offline", DIACHUNK_ORIGIN="https://example.org")
    assert "is DIACHUNK_ORIGINS meant?" in found.the("DIACHUNK_ORIGIN:", "warning")["what"]
    assert found.exit_code == 0


def test_a_variable_that_hides_what_a_file_says(user: Path) -> None:
    write_config(user, {}, f'home = "{user / "other"}"')
    finding = diagnose("--offline").the("hides what", "note")
    assert not cured(finding, "--offline").about("hides what")


def test_works_without_a_home() -> None:
    found = diagnose("--offline", HOME=None, DIACHUNK_HOME=None, XDG_CONFIG_HOME=None)
    assert found.summary["checks"] > 10
    # A user without an entry in passwd, as containers have them, has none at all.
    done = call("diachunk", "doctor", "--offline", HOME="~", DIACHUNK_HOME=None, XDG_CONFIG_HOME=None)
    assert "Traceback" not in done.stderr


def test_no_home_at_all_is_a_fault_with_a_cure() -> None:
    need_users()
    nobody = User(61234, 61234)
    found = examined(nobody, HOME=None, DIACHUNK_HOME=None, XDG_CACHE_HOME=None, XDG_CONFIG_HOME=None)
    finding = found.the("no home directory", "fault")
    assert found.exit_code == 6
    home = finding["cure"].partition("DIACHUNK_HOME=")[2].split()[0]
    again = examined(nobody, HOME=None, DIACHUNK_HOME=home, XDG_CACHE_HOME=None, XDG_CONFIG_HOME=None)
    assert not [each for each in again.findings if each["level"] == "fault"], again.worse


def test_says_nothing_of_secrets(user: Path) -> None:
    write_config(user, {}, 'origins = ["https://me:sesame@example.invalid/x?token=sesame"]')
    proxy = "http://me:sesame@127.0.0.1:9"
    for words in (("-v",), ("-v", "--json")):
        done = call("diachunk", "doctor", *words, https_proxy=proxy, NO_PROXY="")
        assert "sesame" not in done.stdout + done.stderr
        assert "127.0.0.1:9" in done.stdout
