"""The Hub's token is found where its own client keeps it, without that client."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diachunk.errors import UsageError
from diachunk.sources.hub_access import HubAccess, hub_access

VARIABLES = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_TOKEN_PATH",
    "HF_HOME",
    "XDG_CACHE_HOME",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN",
)


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def log_in(directory: Path, token: str = "hf_file\n") -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "token").write_text(token)


def token() -> str:
    return HubAccess("https://huggingface.co").token


def test_without_a_login_there_is_none() -> None:
    assert token() == ""
    assert hub_access().authorization() is None


@pytest.mark.parametrize(
    ("variable", "below"), [("HF_HOME", ""), ("XDG_CACHE_HOME", "huggingface"), ("", ".cache/huggingface")]
)
def test_a_login_is_found_where_the_client_keeps_it(
    variable: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "elsewhere" if variable else tmp_path
    log_in(root / below)
    if variable:
        monkeypatch.setenv(variable, str(root))
    assert token() == "hf_file"


def test_what_the_real_client_finds_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    log_in(tmp_path / "hub")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    code = "import huggingface_hub; print(huggingface_hub.get_token())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == token() == "hf_file"


def test_the_variable_wins_and_implicit_tokens_can_be_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(tmp_path / ".cache" / "huggingface")
    monkeypatch.setenv("HF_TOKEN", "hf_variable")
    assert token() == "hf_variable"
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert token() == ""


def test_what_is_no_token_is_refused_without_being_shown(tmp_path: Path) -> None:
    log_in(tmp_path / ".cache" / "huggingface", "hf_one\nX-Evil: two")
    with pytest.raises(UsageError) as caught:
        token()
    assert "hf_one" not in str(caught.value)


def test_nothing_of_the_client_is_imported() -> None:
    code = (
        "import sys; from diachunk.sources.hub_access import hub_access; hub_access().token; "
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
