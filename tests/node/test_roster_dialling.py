"""Whom we call that others told us of. P14 of docs/protocol.md."""

from __future__ import annotations

import pytest

from diachunk.node.around.dialling import UNANSWERED_MAX, Dialling, informant_of, may_be_dialled
from diachunk.node.guard import is_near
from diachunk.node.model import Address

FROM = Address("10.0.0.1", 8420)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("host", "port", "informant", "may"),
    [
        ("10.0.0.7", 8420, FROM, True),
        ("fd00::7", 8420, FROM, True),
        ("10.0.0.7", 22, FROM, False),
        ("10.0.0.7", 1023, FROM, False),
        ("8.8.8.8", 8420, FROM, False),
        ("2606:4700::1", 8420, FROM, False),
        ("0.0.0.0", 8420, FROM, False),
        ("224.0.0.1", 8420, FROM, False),
        ("lab-7", 8420, FROM, False),
        ("127.0.0.1", 8420, FROM, False),
        ("::1", 8420, FROM, False),
        ("127.0.0.1", 8420, Address("127.0.0.1", 8421), True),
        ("127.0.0.1", 8420, None, True),
    ],
)
def test_only_near_addresses_and_unprivileged_ports_are_called(
    host: str, port: int, informant: Address | None, may: bool
) -> None:
    assert may_be_dialled(Address(host, port), informant, is_near) is may


def test_at_most_4_a_second_of_what_is_hearsay() -> None:
    clock = Clock()
    dialling = Dialling(clock)
    calls = 0
    for _ in range(100):
        if dialling.may_dial(hearsay=True):
            dialling.dialled(hearsay=True)
            calls += 1
        clock.now += 0.05
    assert calls <= 5 * 4 + 4
    assert calls >= 5 * 4


def test_who_does_not_answer_is_left_for_60_seconds() -> None:
    clock = Clock()
    dialling = Dialling(clock)
    address = Address("10.0.0.7", 8420)
    dialling.unanswered(address, "10.0.0.1")
    clock.now += 59
    assert dialling.left_alone(address)
    clock.now += 2
    assert not dialling.left_alone(address)


def test_an_informant_of_8_addresses_that_are_none_is_not_heard_any_more() -> None:
    dialling = Dialling(Clock())
    for number in range(UNANSWERED_MAX):
        assert dialling.hears("10.0.0.1")
        for _ in range(3):
            dialling.unanswered(Address(f"10.0.1.{number}", 8420), "10.0.0.1")
    assert not dialling.hears("10.0.0.1")
    assert dialling.hears("10.0.0.2")


def test_a_host_that_showed_8_ports_that_are_none_is_left_alone_whoever_names_more() -> None:
    clock = Clock()
    dialling = Dialling(clock)
    for number in range(UNANSWERED_MAX):
        dialling.unanswered(Address("10.0.0.7", 2000 + number), f"10.0.1.{number}")
    assert dialling.left_alone(Address("10.0.0.7", 9999))
    clock.now += 61
    assert not dialling.left_alone(Address("10.0.0.7", 9999))


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    dialling = Dialling(clock)
    for number in range(20_000):
        clock.now += 0.001
        dialling.unanswered(Address(f"10.{number >> 8}.{number & 255}.1", 8420), f"i{number}")
    assert max(len(dialling._left), len(dialling._astray), len(dialling._silent)) <= 4096


def test_an_informant_is_its_machine_but_on_loopback_its_port() -> None:
    assert informant_of(Address("10.0.0.1", 1)) == informant_of(Address("10.0.0.1", 2))
    assert informant_of(Address("127.0.0.1", 1)) != informant_of(Address("127.0.0.1", 2))
