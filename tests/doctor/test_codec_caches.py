"""The caches of the native set-up: DAC's file and Dia's directory."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from fixtures.doctored import cured, diagnose

WEIGHTS = Path(".cache/descript/dac/weights_44khz_8kbps_0.0.1.pth")
WEIGHTS_BYTES = 306_717_287


def zip_file(path: Path, size_bytes: int | None = None) -> Path:
    """A zip file; sparse at its head if it is to be large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"x" * 100)
    if size_bytes is not None:
        data = path.read_bytes()
        with open(path, "wb") as file:
            file.seek(size_bytes - len(data))
            file.write(data)
    return path


def test_no_file_is_no_trouble(user: Path) -> None:
    assert diagnose("--offline").worse == []
    (user / WEIGHTS.parent).mkdir(parents=True)
    (user / ".cache" / "dia" / "model").mkdir(parents=True)
    assert diagnose("--offline").worse == []


def test_a_whole_file_is_well(user: Path) -> None:
    zip_file(user / WEIGHTS, WEIGHTS_BYTES)
    found = diagnose("--offline")
    assert found.worse == []
    assert [each for each in found.findings if "as it should be" in each["what"]]


@pytest.mark.parametrize("size", [0, 1000, WEIGHTS_BYTES - 1])
def test_a_file_that_is_cut_off(user: Path, size: int) -> None:
    path = user / WEIGHTS
    path.parent.mkdir(parents=True)
    path.touch()
    os.truncate(path, size)
    found = diagnose("--offline")
    finding = found.the("failed finding central directory", "fault")
    assert f"{size:,} of {WEIGHTS_BYTES:,} bytes" in finding["what"]
    assert "they never fetch it again" in finding["what"]
    assert finding["cure"] == "diachunk verify --cache descript --repair"
    assert found.exit_code == 4


def test_a_file_of_the_right_size_that_has_no_end(user: Path) -> None:
    path = zip_file(user / WEIGHTS, WEIGHTS_BYTES)
    with open(path, "r+b") as file:
        file.seek(-22, os.SEEK_END)
        file.write(bytes(22))
    assert diagnose("--offline").the("failed finding central directory", "fault")


def test_another_model_under_that_name_is_a_warning(user: Path) -> None:
    zip_file(user / WEIGHTS, WEIGHTS_BYTES + 5)
    assert diagnose("--offline").the("is not DAC's file", "warning")


def test_a_link_that_leads_nowhere(user: Path) -> None:
    (user / WEIGHTS).parent.mkdir(parents=True)
    (user / WEIGHTS).symlink_to("/nowhere/weights.pth")
    finding = diagnose("--offline").the("a link that leads nowhere", "fault")
    remove = finding["cure"].partition(" && ")[0]
    assert cured({**finding, "cure": remove}, "--offline").worse == []


def test_dia_without_its_vocoder(user: Path) -> None:
    (user / ".cache/dia/model").mkdir(parents=True)
    (user / ".cache/dia/model/config.json").write_text("{}")
    finding = diagnose("--offline").the("without which Dia does not start", "warning")
    assert finding["cure"] == "diachunk fetch dia-1.6b-native -c vocoder --place"
    zip_file(user / ".cache/dia/vocoder/checkpoint.pth")
    assert diagnose("--offline").worse == []


def test_dias_vocoder_that_is_cut_off(user: Path) -> None:
    path = zip_file(user / ".cache/dia/vocoder/checkpoint.pth")
    os.truncate(path, 60)
    finding = diagnose("--offline").the("checkpoint.pth is cut off", "fault")
    assert finding["cure"] == "diachunk verify --cache dia --repair"


def test_what_killed_programs_left_in_dias_cache(user: Path) -> None:
    zip_file(user / ".cache/dia/vocoder/checkpoint.pth")
    (user / ".cache/dia/vocoder/.x.diachunk-tmp").write_bytes(b"half")
    (user / ".cache/dia/model").mkdir()
    (user / ".cache/dia/model/dia.pth").touch()
    finding = diagnose("--offline").the("left behind by a killed program", "warning")
    assert cured(finding, "--offline").worse == []
