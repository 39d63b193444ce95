"""What a name stands for when others are asked: every rule of it, and every way to be refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from diachunk.api.trust.naming import Choice, How, Known, Offer, choose, newer
from diachunk.api.trust.signers import Signed, Verdict
from diachunk.digest import Digest
from diachunk.errors import TrustError
from diachunk.manifest import Manifest
from diachunk.manifest.signed import Signature, with_signatures
from diachunk.store.marks import Seen
from store_files import PIECES, manifest_of

NAME = ("lab/a", "main")
ONE = manifest_of("lab/a", {"model/a.bin": PIECES[:1]})
TWO = manifest_of("lab/a", {"model/a.bin": PIECES[1:2]})
THREE = manifest_of("lab/a", {"model/a.bin": PIECES[2:3]})
ELSE = manifest_of("lab/b", {"model/a.bin": PIECES[:1]})


def bearing(manifest: Manifest, serial: int) -> Manifest:
    return with_signatures(manifest, [Signature(serial, "any")])


def judge(manifest: Manifest) -> Verdict:
    """Every signature holds, and is alice's."""
    if not manifest.signatures:
        return Verdict(None, f"{manifest.ref} is not signed")
    return Verdict(Signed("alice@lab", Signature(manifest.signatures[0]["serial"], "any")))


def offer(manifest: Manifest, how: How = How.MDNS, host: int = 1, *, bare: bool = False) -> Offer:
    return Offer(f"10.0.0.{host}:8420", how, manifest.id, None if bare else manifest)


def known(
    *,
    local: Digest | None = None,
    pin: Digest | None = None,
    seen: Seen | None = None,
    require_signed: bool = False,
) -> Known:
    return Known(local, pin, seen, require_signed, judge)


def taken(choice: Choice | None) -> tuple[Digest, str]:
    assert choice is not None
    return choice.id, choice.why


def never(_: Digest, __: Sequence[Offer]) -> bool:
    raise AssertionError("nobody was to be asked")


def refused(*offers: Offer, of: Known | None = None) -> TrustError:
    with pytest.raises(TrustError) as caught:
        choose(*NAME, offers, of or known())
    return caught.value


# --- the order -----------------------------------------------------------------------------------------------


def test_a_local_name_needs_nobody() -> None:
    everything = [offer(bearing(TWO, 9), How.NAMED)]
    found = choose(*NAME, everything, known(local=ONE.id, pin=TWO.id), never)
    assert taken(found) == (ONE.id, "the name stands for it here")


def test_a_pin_goes_before_signers_and_peers_and_says_who_has_it() -> None:
    offers = [offer(bearing(TWO, 9), How.NAMED), offer(ONE, How.EXCHANGE, 2, bare=True)]
    found = choose(*NAME, offers, known(pin=ONE.id), never)
    assert found is not None
    assert (found.id, found.offers) == (ONE.id, (offers[1],))


def test_a_trusted_signer_goes_before_a_named_peer_whoever_offers_it() -> None:
    offers = [offer(ONE, How.NAMED, 1), offer(bearing(TWO, 5), How.EXCHANGE, 2)]
    found = choose(*NAME, offers, known(), never)
    assert taken(found)[0] == TWO.id
    assert "alice@lab" in taken(found)[1]


def test_the_latest_signed_version_is_taken() -> None:
    offers = [offer(bearing(TWO, 9)), offer(bearing(ONE, 5), host=2), offer(TWO, host=3)]
    found = choose(*NAME, offers, known(), never)
    assert found is not None
    assert found.id == TWO.id
    assert [each.address for each in found.offers] == ["10.0.0.1:8420", "10.0.0.3:8420"]


@pytest.mark.parametrize("how", [How.NAMED, How.DNS])
def test_a_named_peer_is_believed_without_a_question(how: How) -> None:
    found = choose(*NAME, [offer(ONE, how), offer(TWO, How.MDNS, 2)], known(), never)
    assert taken(found)[0] == ONE.id
    assert "10.0.0.1:8420" in taken(found)[1]


@pytest.mark.parametrize("how", [How.MDNS, How.EXCHANGE])
def test_of_strangers_a_person_is_asked(how: How) -> None:
    asked: list[tuple[Digest, int]] = []

    def ask(manifest_id: Digest, offers: Sequence[Offer]) -> bool:
        asked.append((manifest_id, len(offers)))
        return True

    found = choose(*NAME, [offer(ONE, how), offer(ONE, how, 2)], known(), ask)
    assert taken(found) == (ONE.id, "taken by you")
    assert asked == [(ONE.id, 2)]


def test_without_a_terminal_the_command_that_would_take_it_is_said() -> None:
    error = refused(offer(ONE))
    assert error.exit_code == 7
    assert error.hint.endswith(f"diachunk fetch {ONE.hex_id} --peer 10.0.0.1:8420")


def test_who_says_no_takes_nothing() -> None:
    with pytest.raises(TrustError, match=ONE.hex_id):
        choose(*NAME, [offer(ONE)], known(), lambda *_: False)


def test_where_nobody_offers_anything_nothing_is_found() -> None:
    assert choose(*NAME, [], known(), never) is None


def test_a_copy_that_bears_the_signature_is_found_among_those_that_lost_it_and_comes_first() -> None:
    offers = [offer(ONE, host=1), offer(ONE, host=2, bare=True), offer(bearing(ONE, 5), host=3)]
    found = choose(*NAME, offers, known(require_signed=True), never)
    assert found is not None
    assert [each.address for each in found.offers] == ["10.0.0.3:8420", "10.0.0.1:8420", "10.0.0.2:8420"]


def test_a_crowd_of_copies_is_not_judged_one_by_one() -> None:
    judged: list[Manifest] = []

    def count(manifest: Manifest) -> Verdict:
        judged.append(manifest)
        return judge(manifest)

    with pytest.raises(TrustError):
        choose(*NAME, [offer(ONE, host=n) for n in range(100)], Known(judge=count))
    assert len(judged) < 10


# --- disagreement --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", list(How))
def test_peers_that_disagree_are_listed_and_none_is_taken(how: How) -> None:
    error = refused(offer(ONE, how), offer(TWO, how, 2))
    assert "disagree" in error.message
    for text in (ONE.hex_id, TWO.hex_id, "10.0.0.1:8420", "10.0.0.2:8420"):
        assert text in error.message
    assert "diachunk fetch" in error.hint


def test_two_versions_of_one_second_are_a_disagreement() -> None:
    assert "one second" in refused(offer(bearing(ONE, 5)), offer(bearing(TWO, 5), host=2)).message


def test_strangers_cannot_block_what_a_named_peer_says() -> None:
    offers = [offer(TWO, How.MDNS, 2), offer(THREE, How.EXCHANGE, 3), offer(ONE, How.NAMED, 1)]
    assert taken(choose(*NAME, offers, known(), never))[0] == ONE.id


def test_a_crowd_of_liars_makes_no_endless_message() -> None:
    crowd = [offer(manifest_of("lab/a", {"m/a": PIECES[:1]}, f"v{n}"), host=n) for n in range(200)]
    error = refused(*crowd)
    assert len(error.message) < 2000
    assert "192 more" in error.message


# --- lies ----------------------------------------------------------------------------------------------------


def test_a_manifest_of_another_name_or_id_is_no_offer() -> None:
    lies = [offer(ELSE, How.NAMED), Offer("10.0.0.2:8420", How.NAMED, ONE.id, TWO)]
    error = refused(*lies)
    assert error.message.count("another id or name") == 2
    assert taken(choose(*NAME, [*lies, offer(ONE, How.NAMED, 3)], known(), never))[0] == ONE.id


def test_another_revision_is_another_name() -> None:
    other = manifest_of("lab/a", {"model/a.bin": PIECES[:1]}, "v2")
    assert "another id or name" in refused(offer(bearing(other, 9), How.NAMED)).message


def test_a_signature_counts_only_with_the_manifest_that_bears_it() -> None:
    offers = [offer(bearing(ONE, 5), bare=True), offer(TWO, How.NAMED, 2)]
    assert taken(choose(*NAME, offers, known(), never))[0] == TWO.id


# --- rollback, and what must be signed -----------------------------------------------------------------------

SEEN = Seen(7, TWO.id)


@pytest.mark.parametrize("how", list(How))
def test_an_older_signed_version_is_refused_whoever_offers_it(how: How) -> None:
    error = refused(offer(bearing(ONE, 5), how), of=known(seen=SEEN))
    assert "older version" in error.message
    assert "1970-01-01 00:00:05" in error.message, "when it was signed"
    assert TWO.hex_id[:16] in error.message, "which was seen before"


@pytest.mark.parametrize("how", list(How))
def test_what_was_signed_once_is_not_taken_unsigned(how: How) -> None:
    assert "not signed by anybody trusted" in refused(offer(ONE, how), of=known(seen=SEEN)).message


def test_the_version_that_was_seen_needs_no_signature_again() -> None:
    found = choose(*NAME, [offer(TWO, How.NAMED), offer(bearing(ONE, 5), host=2)], known(seen=SEEN), never)
    assert taken(found)[0] == TWO.id


def test_a_later_version_is_taken() -> None:
    assert taken(choose(*NAME, [offer(bearing(THREE, 8))], known(seen=SEEN), never))[0] == THREE.id


@pytest.mark.parametrize("how", list(How))
def test_what_must_be_signed_is_refused_unsigned(how: How) -> None:
    strict = known(require_signed=True)
    assert "require_signed" in refused(offer(ONE, how), of=strict).message
    assert "require_signed" in refused(offer(ONE, how, bare=True), of=strict).message
    assert taken(choose(*NAME, [offer(bearing(ONE, 1), how)], strict, never))[0] == ONE.id


# --- update --------------------------------------------------------------------------------------------------


def test_a_later_signed_version_is_newer() -> None:
    of = known(local=TWO.id, seen=SEEN)
    found = newer(*NAME, [offer(bearing(THREE, 8)), offer(bearing(TWO, 7), host=2)], of)
    assert taken(found)[0] == THREE.id
    assert found is not None
    assert found.signed is not None


def test_a_first_signed_version_is_newer_than_an_unsigned_one() -> None:
    assert taken(newer(*NAME, [offer(bearing(ONE, 1))], known(local=TWO.id)))[0] == ONE.id


def test_a_version_that_was_seen_and_never_fetched_is_still_newer() -> None:
    assert taken(newer(*NAME, [offer(bearing(TWO, 7))], known(local=ONE.id, seen=SEEN)))[0] == TWO.id


def test_what_stands_here_is_not_newer_nor_is_what_strangers_say() -> None:
    assert newer(*NAME, [], known(local=ONE.id)) is None
    assert newer(*NAME, [offer(ONE, How.NAMED), offer(TWO, How.MDNS, 2)], known(local=ONE.id)) is None


def test_what_a_named_peer_has_instead_is_newer_and_it_is_named() -> None:
    offers = [offer(ONE, How.NAMED), offer(TWO, How.NAMED, 2)]
    found = newer(*NAME, offers, known(local=ONE.id))
    assert taken(found)[0] == TWO.id
    assert "10.0.0.2:8420" in taken(found)[1]


def test_named_peers_that_disagree_about_what_is_newer_are_listed() -> None:
    with pytest.raises(TrustError, match="disagree"):
        newer(*NAME, [offer(TWO, How.NAMED), offer(THREE, How.NAMED, 2)], known(local=ONE.id))


def test_an_update_never_goes_back() -> None:
    of = known(local=TWO.id, seen=SEEN)
    for older in (bearing(ONE, 5), ONE):
        with pytest.raises(TrustError, match="was seen before"):
            newer(*NAME, [offer(older, How.NAMED)], of)


def test_a_pin_decides_an_update_too() -> None:
    offers = [offer(bearing(THREE, 9), How.NAMED)]
    assert newer(*NAME, offers, known(local=ONE.id, pin=ONE.id)) is None
    assert taken(newer(*NAME, offers, known(local=ONE.id, pin=TWO.id)))[0] == TWO.id


def test_another_version_of_the_same_second_is_not_newer() -> None:
    assert newer(*NAME, [offer(bearing(THREE, 7))], known(local=TWO.id, seen=SEEN)) is None
