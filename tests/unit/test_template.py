"""Where an origin keeps a file."""

from __future__ import annotations

import pytest

from diachunk.errors import UsageError
from diachunk.sources.template import OriginTemplate


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://h/a", "https://h/a/model/x/y.bin"),
        ("https://h/a/", "https://h/a/model/x/y.bin"),
        ("https://h/{component}-v1/{path}", "https://h/model-v1/x/y.bin"),
        ("https://h/{path}?c={component}", "https://h/x/y.bin?c=model"),
        ("https://h/flat/{path}", "https://h/flat/x/y.bin"),
    ],
)
def test_a_prefix_or_a_template(text: str, wanted: str) -> None:
    assert OriginTemplate(text).locate("model", "x/y.bin") == wanted


def test_the_unnamed_component_has_no_directory() -> None:
    assert OriginTemplate("https://h/a").locate("", "y.bin") == "https://h/a/y.bin"


def test_names_are_quoted_in_urls_only() -> None:
    assert (
        OriginTemplate("https://h").locate("a b", "é#?/100%.bin") == "https://h/a%20b/%C3%A9%23%3F/100%25.bin"
    )
    assert OriginTemplate("/mnt", quote=False).locate("a b", "é#?/100%.bin") == "/mnt/a b/é#?/100%.bin"


def test_a_name_that_looks_like_a_placeholder_is_only_a_name() -> None:
    template = OriginTemplate("/mnt/{component}/{path}", quote=False)
    assert template.locate("{path}", "{component}") == "/mnt/{path}/{component}"


def test_a_template_without_a_path_is_refused() -> None:
    with pytest.raises(UsageError, match=r"\{path\}"):
        OriginTemplate("https://h/{component}")


@pytest.mark.parametrize(
    ("text", "base"),
    [("/mnt/a/", "/mnt/a"), ("/mnt/{component}/{path}", "/mnt"), ("/", "/"), ("/mnt/{odd}", "/mnt/{odd}")],
)
def test_the_base_is_what_comes_before_the_first_placeholder(text: str, base: str) -> None:
    assert OriginTemplate(text, quote=False).base == base
