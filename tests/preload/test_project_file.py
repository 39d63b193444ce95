"""What a project file may say, and what it may not: it comes with somebody's code."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from diachunk import project
from diachunk.config import load_config
from diachunk.errors import UsageError
from diachunk.limits import Limits
from diachunk.places.known import KINDS
from diachunk.project import GUARD_LIMITS, WantedCheckpoint, find_project_file
from diachunk.values import read_text


def load(directory: Path, text: str | bytes, **environment: str) -> tuple[WantedCheckpoint, ...]:
    file = directory / "diachunk.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config({**os.environ, **environment}, directory / "no-site", file).checkpoints


def test_settings_and_recipes_may_name_every_place_that_there_is() -> None:
    assert set(project.PLACE_KINDS) == set(KINDS)


def test_targets_are_strings_or_tables(tmp_path: Path) -> None:
    text = """
    [[checkpoints]]
    target = "lab/one"
    [[checkpoints]]
    target = "two.json"
    components = ["vocoder"]
    places = ["hub", "./shown"]
    origins = ["https://h/two"]
    to = "weights"
    """
    one, two = load(tmp_path, text)
    assert one == WantedCheckpoint("lab/one", base=tmp_path)
    assert (two.target, two.components, two.origins) == ("two.json", ("vocoder",), ("https://h/two",))
    assert two.places == ("hub", str(tmp_path / "shown"))
    assert two.to == tmp_path / "weights"


@pytest.mark.parametrize(
    ("target", "locator"),
    [
        ("lab/one@v1", "lab/one@v1"),
        ("./a.json", "/base/./a.json"),
        ("a/b.toml", "/base/a/b.toml"),
        ("../a.json", "/base/../a.json"),
        ("/x/a.json", "/x/a.json"),
        ("hub:org/a.json", "hub:org/a.json"),
        ("https://h/a.json", "https://h/a.json"),
        ("~/a.json", "~/a.json"),
    ],
)
def test_files_start_from_the_directory_of_the_file_that_names_them(target: str, locator: str) -> None:
    assert WantedCheckpoint(target, base=Path("/base")).locator == os.path.expanduser(locator)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("checkpoints = 'a'", "checkpoints: a list is wanted"),
        ("checkpoints = [1]", "checkpoints[1]: a string or a table"),
        ("checkpoints = ['a', {}]", "checkpoints[2]: no target"),
        ("checkpoints = [{target = 1}]", "checkpoints[1].target: a string"),
        ("checkpoints = [{target = 'a', dir = 'x'}]", "checkpoints[1]: no such setting: 'dir'"),
        ("checkpoints = [{target = 'a', components = 'x'}]", "checkpoints[1].components: a list of strings"),
        ("checkpoints = [{target = 'a', to = ''}]", "checkpoints[1].to: a directory"),
        ("checkpoints = [{target = 'a', to = \"x\\u0000\"}]", "checkpoints[1].to: "),
        ("checkpoints = ['']", "'' is not a TARGET"),
        ("checkpoints = ['--force']", "'--force' is not a TARGET"),
        ('checkpoints = ["a\\u001b[2J"]', "is not a TARGET"),
        ("checkpoints = [" + "'a'," * 1001 + "]", "over 1,000 checkpoints"),
        ("places = ['hugging']", "places: no such place: 'hugging'"),
        ("places = 'hub'", "places: a list of strings"),
        ("peers = ['lab 7']", "peers: 'lab 7' is not HOST[:PORT]"),
        ("peers = ['lab-7:70000']", "is not HOST[:PORT]"),
        ("peers = ['http://lab-7']", "is not HOST[:PORT]"),
        ("checkpoint = ['a']", "no such setting: 'checkpoint'"),
        ("<<<<<<< HEAD", "not TOML"),
        (b"\xff", "not UTF-8"),
        (b"#" * 1_100_000, "over 1,048,576 bytes"),
        ("a" + ".a" * 30_000 + " = 1", "a key of more than 8 parts"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert caught.value.message.startswith(str(tmp_path / "diachunk.toml"))
    assert words in caught.value.message
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("home = '/tmp/theirs'", "home"),
        ("stores = ['/tmp/theirs']", "stores"),
        ("pins = {'lab/dia' = '" + "ab" * 32 + "'}", "pins"),
        ("limits = {manifest_bytes_max = 1000000000000}", "limits.manifest_bytes_max"),
        ("limits = {lanes_max = 10000, lanes = 10000}", "limits.lanes_max"),
    ],
)
def test_what_is_for_this_machine_to_say_is_refused_with_a_reason(
    tmp_path: Path, text: str, key: str
) -> None:
    with pytest.raises(UsageError, match=f"{key}: a project file cannot") as caught:
        load(tmp_path, text)
    assert "config.toml" in caught.value.hint


def test_the_guards_are_limits() -> None:
    assert {each.name for each in fields(Limits)} >= GUARD_LIMITS


@pytest.mark.parametrize("text", ["/etc", "..", "../x", "a/../../x", "~/x", "~", ".", "a/.."])
def test_no_directory_outside_the_project_is_written_to(tmp_path: Path, text: str) -> None:
    for line in (f"checkpoints = [{{target = 'a', to = '{text}'}}]", f"places = ['{text}']"):
        with pytest.raises(UsageError, match=r"not below the project's directory|no such place"):
            load(tmp_path, line)


def test_nor_by_way_of_a_link_that_came_with_the_project(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    project.mkdir()
    outside.mkdir()
    (project / "weights").symlink_to(outside)
    for name in ("weights", "weights/deeper"):
        with pytest.raises(UsageError, match="not below the project's directory"):
            load(project, f"checkpoints = [{{target = 'a', to = '{name}'}}]")


def test_a_project_below_a_link_may_write_to_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (found,) = load(tmp_path / "link", "checkpoints = [{target = 'a', to = 'weights'}]")
    assert found.to == tmp_path / "link" / "weights"


def test_the_users_own_config_may_name_any_directory(tmp_path: Path) -> None:
    file = tmp_path / "xdg" / "diachunk" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("checkpoints = [{target = 'a', to = '/data/a', places = ['~/shown', '../x', 'hub']}]")
    (found,) = load_config(
        {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}, tmp_path / "none"
    ).checkpoints
    assert found.to == Path("/data/a")
    assert found.places == (str(Path.home() / "shown"), str(tmp_path / "xdg" / "x"), "hub")


def test_a_variable_wins_over_the_project_and_that_over_the_users_file(tmp_path: Path) -> None:
    user = tmp_path / "xdg" / "diachunk" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text("max_down = '1M'\nmax_up = '1M'\npeers = ['a']\n[limits]\nlanes = 3\nstall_s = 3.0\n")
    project = tmp_path / "diachunk.toml"
    project.write_text("max_down = '2M'\npeers = ['b']\n[limits]\nlanes = 4\n")
    environment = {
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "HOME": "/h",
        "DIACHUNK_PEERS": "c, [fd00::7]:8420",
    }
    config = load_config(environment, tmp_path / "none", project)
    assert (config.max_down_bps, config.max_up_bps) == (2_000_000, 1_000_000)
    assert config.peers == ("c", "[fd00::7]:8420")
    assert (config.limits.lanes, config.limits.stall_s) == (4, 3.0), "limits are merged one by one"
    assert config.came_from["max_down_bps"] == config.came_from["limits.lanes"] == str(project)
    assert config.came_from["limits.stall_s"] == str(user)
    assert config.came_from["peers"] == "DIACHUNK_PEERS"
    without = load_config(environment, tmp_path / "none")
    assert (without.max_down_bps, without.limits.lanes, without.project) == (1_000_000, 3, None)


def test_only_the_working_directory_has_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "diachunk.toml").touch()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert find_project_file() is None
    monkeypatch.chdir(tmp_path)
    assert find_project_file() == tmp_path / "diachunk.toml"


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "diachunk.toml")
    assert read_text(tmp_path / "diachunk.toml") == ""
