"""Settings: which source wins, what each value may be, and errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from diachunk.config import load_config, parse_config, parse_duration, parse_rate, parse_size, user_file
from diachunk.errors import UsageError
from diachunk.limits import DEFAULT, Limits

ID = "ab" * 32


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1000),
        ("500M", 500_000_000),
        ("1.5GiB", 1_610_612_736),
        ("1.5 gb", 1_500_000_000),
        ("10K", 10_000),
        ("10Ki", 10_240),
        ("2T", 2 * 10**12),
        (" 10MB/s ", 10_000_000),
        ("10MBps", 10_000_000),
        ("100Mbit", 12_500_000),
        ("100Mbit/s", 12_500_000),
        ("100 MBIT", 12_500_000),
        ("100Mbps", 12_500_000),
        ("8Kibit", 1024),
    ],
)
def test_sizes_and_rates(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "M", "-1", "1e3", "10X", "1,5M", "10i", "10iB", "nan", "inf", "10MM", "1" * 16, "\u0661M", "1 0"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


def test_a_rate_that_would_look_like_a_hang_is_refused() -> None:
    assert parse_rate("1K") == 1000
    with pytest.raises(UsageError, match="under 1 kB"):
        parse_rate("10")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("1.5m", 90), ("12h", 43200), ("30d", 2592000), ("1W", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "5y", "1e9", "nan", "5 s s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


def test_a_whole_file() -> None:
    values = parse_config(
        f"""
        home = "/srv/diachunk"
        stores = ["/a", "~/b"]
        origins = ["https://h/a"]
        max_down = "10M"
        pins = {{"lab/dia" = "{ID}", "lab/dia@v2" = "{ID}"}}
        limits = {{lanes = 4, stall_s = 2, backoff_first_s = 0.1}}
        """,
        "x.toml",
    )
    assert values["home"] == Path("/srv/diachunk")
    assert values["stores"] == (Path("/a"), Path.home() / "b")
    assert values["origins"] == ("https://h/a",)
    assert values["max_down_bps"] == 10_000_000
    assert values["pins"] == {"lab/dia@main": ID, "lab/dia@v2": ID}
    assert (values["limits"].lanes, values["limits"].stall_s, values["limits"].patience_s) == (4, 2, 30.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("home = ", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("hom = 1", "no such setting: 'hom'"),
        ("home = 1", "home: a string"),
        ("stores = '/a'", "stores: a list of strings"),
        ("origins = [1]", "origins: a list of strings"),
        ("max_down = 5", "max_down: a string"),
        ("max_down = 'fast'", "max_down: 'fast' is not a size"),
        ("max_up = '5'", "max_up: '5': under 1 kB a second"),
        ("pins = ['a']", "pins: a table"),
        ("pins = {a = 'latest'}", "pins: a table"),
        ("limits = 5", "limits: a table"),
        ("limits = {lane = 5}", "limits.lane: no such limit"),
        ("limits = {lanes = 0}", "limits.lanes: 0 is not a positive"),
        ("limits = {lanes = -1}", "limits.lanes"),
        ("limits = {lanes = true}", "limits.lanes"),
        ("limits = {lanes = 1.5}", "limits.lanes"),
        ("limits = {lanes = '4'}", "limits.lanes"),
        ("limits = {lanes = 33}", "over lanes_max"),
        ("limits = {stall_s = inf}", "limits.stall_s"),
        ("limits = {stall_s = nan}", "limits.stall_s"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_key(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(text, "x.toml")
    assert caught.value.message.startswith("x.toml: ")
    assert words in caught.value.message
    assert len(str(caught.value)) < 2000


def test_limits_default_to_the_table_of_the_design() -> None:
    assert Limits.from_mapping({}) == DEFAULT
    assert (DEFAULT.lanes, DEFAULT.stall_s, DEFAULT.patience_s, DEFAULT.park_after_faults) == (8, 10, 30, 5)


@pytest.fixture
def files(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """An environment with a user's config file, and a site's file."""
    user = tmp_path / "xdg" / "diachunk" / "config.toml"
    user.parent.mkdir(parents=True)
    user.write_text('home = "/user"\nmax_up = "2M"\n')
    site = tmp_path / "site.toml"
    site.write_text('home = "/site"\nmax_up = "1M"\nmax_down = "1M"\n')
    return {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, site


def test_a_variable_wins_over_the_users_file_and_that_over_the_sites(
    files: tuple[dict[str, str], Path],
) -> None:
    environment, site = files
    config = load_config({**environment, "DIACHUNK_HOME": "/variable"}, site)
    assert (config.home, config.max_up_bps, config.max_down_bps) == (Path("/variable"), 2_000_000, 1_000_000)
    assert config.came_from == {
        "home": "DIACHUNK_HOME",
        "max_up_bps": str(user_file(environment)),
        "max_down_bps": str(site),
    }


def test_lists_in_variables(files: tuple[dict[str, str], Path]) -> None:
    environment, site = files
    variables = {"DIACHUNK_STORES": "/a:/b::", "DIACHUNK_ORIGINS": " https://h/a\thttps://h/b "}
    config = load_config({**environment, **variables}, site)
    assert config.stores == (Path("/a"), Path("/b"))
    assert config.origins == ("https://h/a", "https://h/b")


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("https://h/a,https://h/b", ["https://h/a", "https://h/b"]),
        ("https://h/a, https://h/b ,\thttps://h/c,", ["https://h/a", "https://h/b", "https://h/c"]),
        (",,https://h/a,,", ["https://h/a"]),
        ("/data/a,/data/b,./c,../d", ["/data/a", "/data/b", "./c", "../d"]),
        ("https://h/a,b/{path}", ["https://h/a,b/{path}"]),
        ("https://h/v1,2 s3+x://h/a,s3+x://h/b", ["https://h/v1,2", "s3+x://h/a", "s3+x://h/b"]),
    ],
)
def test_urls_in_a_variable_stand_between_blanks_or_commas(
    files: tuple[dict[str, str], Path], text: str, origins: list[str]
) -> None:
    environment, site = files
    assert load_config({**environment, "DIACHUNK_ORIGINS": text}, site).origins == tuple(origins)


def test_places_and_peers_in_variables(files: tuple[dict[str, str], Path]) -> None:
    environment, site = files
    config = load_config(
        {**environment, "DIACHUNK_PLACES": "hub, ./shown", "DIACHUNK_PEERS": "a b:1,c"}, site
    )
    assert config.places == ("hub", str(Path.cwd() / "shown"))
    assert config.peers == ("a", "b:1", "c")
    with pytest.raises(UsageError, match="DIACHUNK_PLACES: no such place: 'hug'"):
        load_config({**environment, "DIACHUNK_PLACES": "hug"}, site)


def test_limits_of_several_files_add_up_and_have_to_agree(
    files: tuple[dict[str, str], Path], tmp_path: Path
) -> None:
    environment, site = files
    site.write_text("[limits]\nlanes = 4\nlanes_max = 4\nstall_s = 3.0\n")
    user = user_file(environment)
    assert user is not None
    user.write_text('home = "/user"\n[limits]\nlanes = 2\n')
    config = load_config(environment, site)
    assert (config.limits.lanes, config.limits.lanes_max, config.limits.stall_s) == (2, 4, 3.0)
    assert config.came_from["limits.stall_s"] == str(site)
    user.write_text("[limits]\nlanes = 8\n")
    with pytest.raises(UsageError, match=rf"{user}: limits.lanes: 8 is over lanes_max \(4\)"):
        load_config(environment, site)


def test_a_wrong_variable_is_named(files: tuple[dict[str, str], Path]) -> None:
    environment, site = files
    with pytest.raises(UsageError, match="DIACHUNK_MAX_DOWN: 'fast' is not a size"):
        load_config({**environment, "DIACHUNK_MAX_DOWN": "fast"}, site)


def test_an_empty_variable_is_as_if_not_set(files: tuple[dict[str, str], Path]) -> None:
    environment, site = files
    assert load_config({**environment, "DIACHUNK_HOME": ""}, site).home == Path("/user")


def test_without_files_the_home_is_the_platforms_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = load_config({"XDG_CONFIG_HOME": str(tmp_path)}, tmp_path / "none")
    assert config.home.name == "diachunk"
    assert config.home.is_absolute()
    assert config.came_from == {"home": "default"}
    assert config.limits == DEFAULT


def test_a_relative_home_becomes_absolute(tmp_path: Path) -> None:
    config = load_config({"XDG_CONFIG_HOME": str(tmp_path), "DIACHUNK_HOME": "here"}, tmp_path / "none")
    assert config.home == Path.cwd() / "here"


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\xff", "not UTF-8"), (b"#" * 1_100_000, "over 1,048,576 bytes"), (None, "cannot read")],
)
def test_an_unreadable_file_is_named(tmp_path: Path, data: bytes | None, words: str) -> None:
    site = tmp_path / "site.toml"
    if data is None:
        site.mkdir()
    else:
        site.write_bytes(data)
    with pytest.raises(UsageError, match=words) as caught:
        load_config({"XDG_CONFIG_HOME": str(tmp_path)}, site)
    assert str(site) in caught.value.message
