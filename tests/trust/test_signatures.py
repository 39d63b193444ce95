"""Signatures by real keys: what holds, and every way in which one does not."""

from __future__ import annotations

import dataclasses
import stat
import subprocess
import time
from pathlib import Path

import pytest

from diachunk.api.trust import keygen, signing
from diachunk.api.trust.signers import CLOCK_SKEW_S, Signers
from diachunk.api.trust.signing import check_key, sign
from diachunk.errors import TrustError, UsageError
from diachunk.manifest import Manifest, decode, encode
from diachunk.manifest.signed import (
    ARMOUR_CHARS_MAX,
    SIGNATURES_MAX,
    Signature,
    message,
    signatures_of,
    with_signatures,
)
from fixtures.signing_keys import Keys, make_key, needs_ssh_keygen, signed
from store_files import PIECES, manifest_of

pytestmark = needs_ssh_keygen
ONE = manifest_of("lab/a", {"model/a.bin": PIECES})
TWO = manifest_of("lab/a", {"model/a.bin": PIECES[1:]})
NOW = 1_764_000_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def one(keys: Keys) -> Manifest:
    return signed(ONE, keys.alice, NOW)


def judge(manifest: Manifest, allowed: Path) -> tuple[str, str]:
    """(principal, why not)."""
    verdict = Signers(allowed).judge(manifest, NOW)
    return (verdict.signed.principal if verdict.signed else "", verdict.why)


def test_the_signed_text_is_frozen() -> None:
    assert message(ONE, 1764000000).decode() == (
        f"diachunk-manifest-v1\n{ONE.hex_id}\nlab/a@main\n1764000000\n"
    )


def test_a_signature_says_who_and_when_and_survives_the_file(keys: Keys, one: Manifest) -> None:
    read = decode(encode(one))
    assert read == one
    assert read.id == ONE.id, "a signature is outside the id"
    verdict = Signers(keys.allowed).judge(read, NOW)
    assert verdict.signed is not None
    assert (verdict.signed.principal, verdict.signed.serial) == ("alice@lab", NOW)
    assert verdict.signed.when == "2025-11-24 16:00:00 UTC"


def test_anybody_can_check_it_with_ssh_keygen_alone(keys: Keys, one: Manifest, tmp_path: Path) -> None:
    (tmp_path / "sig").write_text(one.signatures[0]["signature"])
    files = ["-f", str(keys.allowed), "-s", str(tmp_path / "sig")]
    words = ["-Y", "verify", "-n", "diachunk", "-I", "alice@lab", *files]
    text = f"diachunk-manifest-v1\n{one.hex_id}\n{one.ref}\n{NOW}\n"
    subprocess.run(["ssh-keygen", *words], input=text.encode(), check=True, timeout=30, capture_output=True)


@pytest.mark.parametrize("change", ["id", "name", "revision", "serial"])
def test_it_holds_for_one_id_name_revision_and_serial(keys: Keys, one: Manifest, change: str) -> None:
    if change == "serial":
        entry = {**one.signatures[0], "serial": NOW - 1}
        other = dataclasses.replace(one, signatures=(entry,))
    else:
        value: dict[str, object] = {"id": TWO.id, "name": "lab/b", "revision": "v2"}
        other = dataclasses.replace(one, **{change: value[change]})  # type: ignore[arg-type]
    who, why = judge(other, keys.allowed)
    assert not who
    assert "does not hold" in why


def test_an_unsigned_manifest_is_called_so(keys: Keys) -> None:
    assert judge(ONE, keys.allowed) == ("", "lab/a@main is not signed")


def test_a_stranger_counts_for_nothing(keys: Keys) -> None:
    who, why = judge(signed(ONE, keys.mallory, NOW), keys.allowed)
    assert not who
    assert "by nobody in" in why


def test_a_signature_for_another_purpose_counts_for_nothing(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "NAMESPACE", "git")
    who, why = judge(signed(ONE, keys.alice, NOW), keys.allowed)
    assert not who
    assert "does not hold" in why


def test_a_key_that_is_allowed_for_another_purpose_counts_for_nothing(
    keys: Keys, one: Manifest, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(keys.allowed.read_text().replace("diachunk", "git"))
    assert judge(one, allowed)[0] == ""


def test_a_key_past_its_time_counts_for_nothing(keys: Keys, one: Manifest, tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(keys.allowed.read_text().replace("namespaces", 'valid-before="20200101",namespaces'))
    assert judge(one, allowed)[0] == ""


def test_of_several_the_latest_that_holds_counts(keys: Keys, one: Manifest) -> None:
    both = with_signatures(one, [sign(ONE, keys.mallory, NOW + 9), sign(ONE, keys.alice, NOW + 5)])
    verdict = Signers(keys.allowed).judge(both, NOW)
    assert verdict.signed is not None
    assert verdict.signed.serial == NOW + 5


def test_a_signature_from_the_future_counts_for_nothing(keys: Keys) -> None:
    manifest = signed(ONE, keys.alice, NOW + CLOCK_SKEW_S + 1)
    verdict = Signers(keys.allowed).judge(manifest, NOW)
    assert verdict.signed is None
    assert "yet to come" in verdict.why
    assert Signers(keys.allowed).judge(manifest, NOW + 10).signed is not None


def test_a_strangers_list_is_bounded_and_nothing_in_it_raises(keys: Keys) -> None:
    armour = sign(ONE, keys.alice, NOW).armour
    junk: list[object] = [
        {},
        [],
        "text",
        5,
        {"kind": "sshsig"},
        {"kind": "pgp", "serial": 1, "signature": armour},
        {"kind": "sshsig", "serial": "1", "signature": armour},
        {"kind": "sshsig", "serial": 1, "signature": ["x"]},
        {"kind": "sshsig", "serial": 1, "signature": "-----BEGIN SSH SIGNATURE-----\n"},
        {"kind": "sshsig", "serial": 1, "signature": armour.replace("\n", "ü\n", 1)},
        {"kind": "sshsig", "serial": 1, "signature": armour[:40] + "A" * ARMOUR_CHARS_MAX + armour[40:]},
    ]
    assert signatures_of(dataclasses.replace(ONE, signatures=tuple(junk))) == ()
    many = [Signature(n, armour).entry() for n in range(1000)]
    assert len(signatures_of(dataclasses.replace(ONE, signatures=tuple(many)))) == SIGNATURES_MAX
    garbled = Signature(NOW, armour[:60] + "/" * 20 + armour[80:])
    assert judge(with_signatures(ONE, [garbled]), keys.allowed)[0] == ""
    assert judge(decode(encode(dataclasses.replace(ONE, signatures=tuple(junk)))), keys.allowed)[0] == ""


def test_a_list_that_is_added_to_stays_bounded(keys: Keys) -> None:
    armour = sign(ONE, keys.alice, NOW).armour
    manifest = ONE
    for serial in range(40):
        manifest = with_signatures(manifest, [Signature(serial, armour)])
    assert [each.serial for each in signatures_of(manifest)] == list(range(39, 39 - SIGNATURES_MAX, -1))
    assert with_signatures(manifest, signatures_of(manifest)[:1]) == manifest


# --- allowed_signers -----------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_used_is_said_with_the_cure(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="No such file") as caught:
        Signers(tmp_path / "none")
    assert "ALLOWED SIGNERS" in caught.value.hint
    with pytest.raises(TrustError, match="directory"):
        Signers(tmp_path)
    allowed = tmp_path / "allowed"
    allowed.write_text(keys.allowed.read_text())
    allowed.chmod(0o666)
    with pytest.raises(TrustError, match="anybody may change it") as caught:
        Signers(allowed)
    assert "chmod o-w" in caught.value.hint
    allowed.chmod(stat.S_IRUSR)
    Signers(allowed)


@pytest.mark.parametrize("text", ["", "# nobody\n", "garbage\n", "\0\0\0", "a@b ssh-ed25519 notbase64\n"])
def test_a_file_that_names_nobody_trusts_nobody(one: Manifest, tmp_path: Path, text: str) -> None:
    (tmp_path / "allowed").write_text(text)
    assert judge(one, tmp_path / "allowed")[0] == ""


def test_a_principal_may_be_a_list_or_a_pattern(keys: Keys, one: Manifest, tmp_path: Path) -> None:
    public = keys.alice.with_suffix(".pub").read_text()
    (tmp_path / "allowed").write_text(f"*@lab,alice {public}")
    assert judge(one, tmp_path / "allowed")[0] == "*@lab"


# --- signing -------------------------------------------------------------------------------------------------


def test_a_public_key_signs_by_the_agent(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE) as agent:
        try:
            until = time.monotonic() + 20
            while not socket.exists() and time.monotonic() < until:
                time.sleep(0.01)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
            subprocess.run(["ssh-add", "-q", keys.alice], check=True, timeout=30, capture_output=True)
            public = tmp_path / "alice.pub"
            public.write_bytes(keys.alice.with_suffix(".pub").read_bytes())
            assert judge(signed(ONE, public, NOW), keys.allowed)[0] == "alice@lab"
        finally:
            agent.terminate()


def test_what_cannot_sign_is_known_before_anything_is_hashed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such key") as caught:
        check_key(tmp_path / "none")
    assert "ssh-keygen -t ed25519" in caught.value.hint
    with pytest.raises(UsageError, match="not a file"):
        check_key(tmp_path)
    for text in ("a\0b", "~a\0b/key"):
        with pytest.raises(UsageError, match="no such key"):
            check_key(text)


def test_a_key_that_does_not_sign_says_what_ssh_keygen_said(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key at all\n")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(TrustError, match="could not be signed") as caught:
        sign(ONE, tmp_path / "key", NOW)
    assert "load" in caught.value.message.lower() or "key" in caught.value.message.lower()


def test_a_wrong_passphrase_ends_and_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_ASKPASS", "false")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    key = make_key(tmp_path / "locked", "-N", "a passphrase")
    with pytest.raises(TrustError, match="could not be signed"):
        sign(ONE, key, NOW)


def test_a_machine_without_ssh_keygen_says_how_to_get_it(
    keys: Keys, one: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    signers = Signers(keys.allowed)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(TrustError, match="not installed here") as caught:
        signers.judge(one, NOW)
    assert "openssh-client" in caught.value.hint
    with pytest.raises(TrustError, match="not installed here"):
        check_key(keys.alice)


def test_a_tool_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ssh-keygen"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setattr(keygen, "tool", lambda: str(fake))
    with pytest.raises(TrustError, match="took longer"):
        keygen.run((), b"", timeout_s=0.2)


def test_a_user_without_a_name_is_not_told_that_the_signer_is_a_stranger(
    keys: Keys, one: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that runs as any number: OpenSSH asks for the user's name before all else, and ends."""
    fake = tmp_path / "ssh-keygen"
    fake.write_text("#!/bin/sh\nprintf 'No user exists for uid 2001\\r\\n' >&2\nexit 255\n")
    fake.chmod(0o755)
    monkeypatch.setattr(keygen, "tool", lambda: str(fake))
    with pytest.raises(TrustError, match="No user exists for uid 2001") as caught:
        Signers(keys.allowed).judge(one, NOW)
    assert "/etc/passwd" in caught.value.hint
