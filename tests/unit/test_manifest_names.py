from __future__ import annotations

import pytest

from diachunk.errors import UsageError
from diachunk.manifest.names import is_component, is_name, is_revision, is_rule, parse_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("dia", ("dia", "main")),
        ("nari-labs/dia-1.6b", ("nari-labs/dia-1.6b", "main")),
        ("dia@v1.0_rc-2", ("dia", "v1.0_rc-2")),
        ("org/name@main", ("org/name", "main")),
        ("0/0@0", ("0/0", "0")),
        ("x" * 96, ("x" * 96, "main")),
    ],
)
def test_a_ref_is_a_name_and_a_revision(text: str, ref: tuple[str, str]) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text", ["", "@", "@main", "dia@", "dia@a@b", "dia@a/b", "a/b/c", "a//b", "/a", "a/"]
)
def test_what_is_no_ref_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ref(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["..", "a..b", "a/..", "../a", ".hidden", "a/.b", "-x", "a\n", "a b", "ä", "x" * 97]
)
def test_names_cannot_leave_a_directory_or_surprise_a_shell(text: str) -> None:
    assert not is_name(text)
    assert not is_revision(text)
    assert not is_component(text)
    with pytest.raises(UsageError):
        parse_ref(text)
    with pytest.raises(UsageError):
        parse_ref(f"ok@{text}")


def test_each_kind_of_name_has_its_own_grammar() -> None:
    assert [is_name(""), is_revision(""), is_component(""), is_rule("")] == [False, False, True, False]
    assert [is_name("a/b"), is_revision("a/b"), is_component("a/b"), is_rule("a/b")] == [
        True,
        False,
        False,
        True,
    ]
    assert [is_name("a+b"), is_revision("a+b"), is_component("a+b"), is_rule("a+b")] == [
        False,
        False,
        False,
        True,
    ]


def test_the_longest_name_can_be_configured() -> None:
    assert is_name("x" * 120, chars_max=120)
    assert not is_name("xx", chars_max=1)
