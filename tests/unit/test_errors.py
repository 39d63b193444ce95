"""Errors: one safe line for a person, without secrets, and the exit code of its family."""

from __future__ import annotations

import errno

import pytest

from diachunk import errors
from diachunk.errors import DiachunkError, ManifestError, from_os_error, printable, redact

EXIT_CODES = {
    "DiachunkError": 1,
    "UsageError": 2,
    "ManifestError": 3,
    "IntegrityError": 4,
    "TransferIncomplete": 5,
    "StoreError": 6,
    "TrustError": 7,
    "LoadError": 8,
    "Interrupted": 130,
}


def test_each_family_has_its_exit_code() -> None:
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, DiachunkError)
    }
    assert found == EXIT_CODES


def test_only_what_can_succeed_when_run_again_is_retryable() -> None:
    families = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    retryable = {kind.__name__ for kind in families if issubclass(kind, DiachunkError) and kind.retryable}
    # not Interrupted: a loop that tries again must not swallow Ctrl-C
    assert retryable == {"TransferIncomplete"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("at https://user:secret@host/a", "at https://host/a"),
        ("at https://user:s@cret@host/a", "at https://host/a"),
        ("socks5h://secret@host", "socks5h://host"),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host?to=a@b", "https://host?…"),
        ("https://host/a?token=secret&b", "https://host/a?…"),
        ("https://host/a?token=secret#part", "https://host/a?…#part"),
        ("'https://host/a?secret' and (https://u:p@h/b?secret)", "'https://host/a?…' and (https://h/b?…)"),
        ("mail a@b.org why?", "mail a@b.org why?"),
    ],
)
def test_no_secret_of_a_url_is_shown(text: str, wanted: str) -> None:
    assert redact(text) == wanted
    error = DiachunkError(text, hint=text)
    assert str(error) == f"{wanted} ({wanted})"
    assert error.args == (wanted,)


def test_untrusted_text_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\x9bd\u202ee\u2066f\x7f") == "a\ufffd[2Jb\ufffdc\ufffdd\ufffde\ufffdf\ufffd"
    assert str(DiachunkError("\x1b]0;x\x07")).isprintable()


def test_a_manifest_error_names_its_rule() -> None:
    assert str(ManifestError("two files", rule="M9", hint="x")) == "two files [M9] (x)"
    assert ManifestError("x").rule == ""


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_disk_said_comes_with_what_to_do(code: int) -> None:
    error = from_os_error(OSError(code, "said so"), "write", "/store/blob")
    assert error.message == "cannot write /store/blob: said so"
    assert error.hint
    assert (error.errno, error.exit_code) == (code, 6)


def test_an_os_error_names_its_own_file_if_no_other_is_known() -> None:
    assert (
        from_os_error(FileNotFoundError(2, "No such file", "/a"), "read").message
        == "cannot read /a: No such file"
    )
    assert from_os_error(OSError("odd"), "read", "/a").message == "cannot read /a: OSError"
