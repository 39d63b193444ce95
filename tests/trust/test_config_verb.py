"""`diachunk config` shows what is set of sharing and trust, in words that fit each kind of value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diachunk.cli.config import config


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHARE", "DISCOVER"):
        monkeypatch.delenv(f"DIACHUNK_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "secret").write_text("never shown, anywhere\n")
    (tmp_path / "diachunk").mkdir()
    (tmp_path / "diachunk" / "config.toml").write_text(
        f'share = false\nport = 9000\nallow = ["10.9.0.0/16"]\nlinger = "2m"\nmax_up = "10M"\n'
        f'token_file = "{tmp_path}/secret"\nrequire_signed = true\n'
    )


def test_each_setting_is_shown_as_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    config()
    lines = capsys.readouterr().out.splitlines()
    shown = {words[0]: " ".join(words[1:-1]) for line in lines if len(words := line.split()) > 1}
    assert shown["share"] == "no"
    assert shown["discover"] == "yes"
    assert shown["port"] == "9000"
    assert shown["allow"] == "10.9.0.0/16"
    assert shown["linger"] == "120 s"
    assert shown["max_up"] == "10.0 MB/s"
    assert shown["require_signed"] == "yes"
    assert shown["allowed_signers"] == "nobody"


def test_the_secret_itself_is_not_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config()
    config(as_json=True)
    out = capsys.readouterr().out
    assert "never shown" not in out
    value = json.loads(out.splitlines()[-1])["settings"]["token_file"]
    assert value["value"] == str(tmp_path / "secret")
    assert value["from"].endswith("config.toml")
