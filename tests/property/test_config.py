"""Text from files and variables is read or refused with UsageError, whatever it is."""

from __future__ import annotations

import string
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diachunk.config import Config, parse_config, parse_duration, parse_rate, parse_size
from diachunk.errors import UsageError
from diachunk.project import SettingsFile

NEARLY = st.text(alphabet=string.digits + "kKmMgGtTiIbBitps/. ", max_size=12)


@given(st.integers(0, 10**12), st.sampled_from(["", "k", "M", "G", "T"]), st.sampled_from(["", "i"]))
def test_what_is_written_is_read(number: int, unit: str, binary: str) -> None:
    binary = binary if unit else ""
    power = " kmgt".index(unit.lower() or " ")
    wanted = number * (1024 if binary else 1000) ** power
    assert parse_size(f"{number}{unit}{binary}B") == pytest.approx(wanted, rel=1e-12)
    assert parse_size(f"{number}{unit}{binary}bit") == pytest.approx(wanted / 8, rel=1e-12, abs=1)


@given(NEARLY | st.text(max_size=20))
def test_any_text_is_a_number_that_is_not_negative_or_refused(text: str) -> None:
    for parse in (parse_size, parse_rate, parse_duration):
        try:
            value = parse(text)
        except UsageError:
            continue
        assert 0 <= value < 10**30


@given(
    st.text(max_size=60)
    | st.from_regex(r"(home|stores|origins|peers|places|pins|limits|max_up) = .{0,20}", fullmatch=True)
    | st.from_regex(
        r"(\[\[checkpoints\]\]\n(target|to|places|origins|components) = .{0,20}\n){1,3}", fullmatch=True
    ),
    st.booleans(),
)
def test_any_config_file_is_read_or_refused(text: str, of_project: bool) -> None:
    try:
        values = parse_config(text, "x", SettingsFile(Path("/project"), of_project))
    except UsageError:
        return
    assert set(values) <= {each.name for each in fields(Config)} - {"came_from", "project"}
    if of_project:
        assert not set(values) & {"home", "stores", "pins"}
        directories = [each.to for each in values.get("checkpoints", ()) if each.to is not None]
        for path in directories:
            assert path.is_relative_to("/project")
