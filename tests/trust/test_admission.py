"""What comes from outside is let in: signed where it must be, and never an older version than was seen."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from diachunk.api.trust.admission import admit, known_of, next_serial
from diachunk.config import Config
from diachunk.errors import TrustError
from diachunk.manifest.signed import signatures_of
from diachunk.store.store import Store
from fixtures.signing_keys import Keys, needs_ssh_keygen, signed
from store_files import PIECES, manifest_of

pytestmark = needs_ssh_keygen
ONE = manifest_of("lab/a", {"model/a.bin": PIECES})
TWO = manifest_of("lab/a", {"model/a.bin": PIECES[1:]})
NOW = 1_764_000_000
FROM = "https://example.org/a.json"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def trusting(tmp_path: Path, keys: Keys) -> Config:
    return Config(tmp_path / "store", allowed_signers=keys.allowed)


@pytest.fixture
def strict(trusting: Config) -> Config:
    return dataclasses.replace(trusting, require_signed=True)


def test_without_signers_everything_is_let_in_and_nothing_remembered(store: Store, keys: Keys) -> None:
    config = Config(store.root)
    assert admit(signed(ONE, keys.alice, NOW), config, store.catalog, FROM, now=NOW) is None
    assert admit(TWO, config, store.catalog, FROM, now=NOW) is None
    assert store.catalog.seen("lab/a", "main") is None


def test_what_is_signed_is_let_in_and_remembered(store: Store, strict: Config, keys: Keys) -> None:
    found = admit(signed(ONE, keys.alice, NOW), strict, store.catalog, FROM, now=NOW)
    assert found is not None
    assert found.principal == "alice@lab"
    seen = store.catalog.seen("lab/a", "main")
    assert seen is not None
    assert (seen.serial, seen.manifest_id) == (NOW, ONE.id)


def test_a_mere_look_leaves_no_trace(store: Store, strict: Config, keys: Keys) -> None:
    assert admit(signed(ONE, keys.alice, NOW), strict, store.catalog, FROM, remember=False, now=NOW)
    assert store.catalog.seen("lab/a", "main") is None


@pytest.mark.parametrize("by_id", [False, True])
def test_what_must_be_signed_and_is_not_is_refused_with_the_cure(
    store: Store, strict: Config, keys: Keys, by_id: bool
) -> None:
    for manifest in (ONE, signed(ONE, keys.mallory, NOW)):
        with pytest.raises(TrustError, match="require_signed") as caught:
            admit(manifest, strict, store.catalog, FROM, by_id=by_id, now=NOW)
        assert FROM in caught.value.message
        assert "diachunk publish lab/a@main --sign KEY" in caught.value.hint


def test_to_require_signatures_and_trust_nobody_is_said(store: Store) -> None:
    with pytest.raises(TrustError, match="nobody's signature is trusted"):
        admit(ONE, Config(store.root, require_signed=True), store.catalog, FROM)


def test_what_a_local_name_stands_for_stays_usable(store: Store, strict: Config) -> None:
    store.catalog.add(ONE)
    store.catalog.set_ref("lab/a", "main", ONE.id)
    assert admit(ONE, strict, store.catalog, FROM) is None


def test_an_older_version_is_refused_though_its_signature_holds(
    store: Store, trusting: Config, keys: Keys
) -> None:
    old, new = signed(ONE, keys.alice, NOW), signed(TWO, keys.alice, NOW + 60)
    admit(old, trusting, store.catalog, FROM, now=NOW)
    admit(new, trusting, store.catalog, FROM, now=NOW)
    with pytest.raises(
        TrustError, match="older version, signed by alice@lab on 2025-11-24 16:00:00"
    ) as caught:
        admit(old, trusting, store.catalog, FROM, now=NOW)
    assert caught.value.exit_code == 7
    assert f"diachunk fetch {ONE.hex_id}" in caught.value.hint
    with pytest.raises(TrustError, match="not signed by anybody trusted"):
        admit(ONE, trusting, store.catalog, FROM, now=NOW)
    assert admit(old, trusting, store.catalog, FROM, by_id=True, now=NOW), "it was asked for by its id"
    seen = store.catalog.seen("lab/a", "main")
    assert seen is not None
    assert seen.manifest_id == TWO.id


def test_a_lab_can_go_back_by_signing_again(store: Store, trusting: Config, keys: Keys) -> None:
    admit(signed(ONE, keys.alice, NOW), trusting, store.catalog, FROM, now=NOW)
    admit(signed(TWO, keys.alice, NOW + 60), trusting, store.catalog, FROM, now=NOW)
    assert admit(signed(ONE, keys.alice, NOW + 120), trusting, store.catalog, FROM, now=NOW)
    with pytest.raises(TrustError, match="older version"):
        admit(signed(TWO, keys.alice, NOW + 60), trusting, store.catalog, FROM, now=NOW)


def test_an_untrusted_signer_cannot_make_versions_look_old(
    store: Store, trusting: Config, keys: Keys
) -> None:
    admit(signed(TWO, keys.mallory, NOW + 600), trusting, store.catalog, FROM, now=NOW)
    assert admit(signed(ONE, keys.alice, NOW), trusting, store.catalog, FROM, now=NOW)


def test_a_signature_that_holds_is_added_to_what_is_stored(
    store: Store, trusting: Config, keys: Keys
) -> None:
    store.catalog.add(ONE)
    admit(signed(ONE, keys.alice, NOW), trusting, store.catalog, FROM, now=NOW)
    admit(signed(ONE, keys.mallory, NOW + 5), trusting, store.catalog, FROM, now=NOW)
    assert [each.serial for each in signatures_of(store.catalog.get(ONE.id))] == [NOW]


def test_a_serial_is_later_than_all_before_also_where_a_clock_was_set_back(store: Store) -> None:
    assert abs(next_serial(ONE, store.catalog) - time.time()) < 60
    assert abs(next_serial(ONE, None) - time.time()) < 60
    store.catalog.note_seen("lab/a", "main", 2**40, TWO.id)
    assert next_serial(ONE, store.catalog) == 2**40 + 1


def test_what_is_known_of_a_name_is_gathered(store: Store, trusting: Config, keys: Keys) -> None:
    store.catalog.add(ONE)
    store.catalog.set_ref("lab/a", "main", ONE.id)
    store.catalog.note_seen("lab/a", "main", 7, TWO.id)
    config = dataclasses.replace(trusting, pins={"lab/a@main": TWO.hex_id})
    known = known_of("lab/a", "main", config, store.catalog)
    assert (known.local, known.pin) == (ONE.id, TWO.id)
    assert known.seen == store.catalog.seen("lab/a", "main")
    verdict = known.judge(signed(ONE, keys.alice, 5))
    assert verdict.signed is not None
    assert known_of("lab/a", "main", Config(store.root), store.catalog).seen is None, "nobody is trusted"
