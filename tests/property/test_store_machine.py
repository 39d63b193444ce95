"""A store through a long life: fetched into, killed, spoiled, repaired, collected, shared, against a model.

Derandomized where every landing runs it: a landing must not be lost to what chance finds on that day. The search
belongs to `make fuzz`, which sets FUZZ_EXAMPLES; hypothesis then prints what reproduces a failure.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from fixtures.hard_life import StoreMachine
from fixtures.machine import DAMAGES
from fixtures.settings import clean_environment

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
STEPS = 20
LONG = EXAMPLES > 25


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[StoreMachine]:
    # The limits of life: a shorter clock would take a busy machine for a stalled source.
    environment, worlds = tmp_path / "environment", tmp_path / "worlds"
    environment.mkdir()
    worlds.mkdir()
    clean_environment(monkeypatch, environment)
    return type("Machine", (StoreMachine,), {"base": worlds})


@pytest.mark.timeout(0 if LONG else 300)
def test_a_store_survives_a_long_life(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not LONG,
            print_blob=True,
            database=None,
            phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


# Stories that chance may not tell in so few examples, by the same rules.


@pytest.mark.parametrize("number", range(14, 42, 3))
def test_after_a_kill_nothing_that_is_right_is_fetched_again(
    machine: type[StoreMachine], number: int
) -> None:
    life = machine()
    life.is_killed_while_fetching("alpha@v1", number)
    life.fetches("alpha@v1")
    life.is_killed_while_fetching("alpha@v2", number - 12)
    life.fetches("alpha@v2")
    life.teardown()


@pytest.mark.parametrize("how", ["flip", "cut", "append"])
def test_a_file_that_its_user_changed_in_a_directory_is_left_alone(
    machine: type[StoreMachine], how: str
) -> None:
    life = machine()
    life.fetches_to_a_directory("alpha@v1", force=False)
    life.a_file_put_into_a_directory_is_spoiled(0, how, 99)
    life.fetches_to_a_directory("alpha@v1", force=False)
    life.the_users_own_files_are_as_they_were()
    life.fetches_to_a_directory("alpha@v1", force=True)
    life.teardown()


@pytest.mark.parametrize("how", DAMAGES)
def test_every_kind_of_file_of_a_store_heals(machine: type[StoreMachine], how: str) -> None:
    life = machine()
    life.publishes("beta@main", copy=False, keep=True)
    life.fetches("alpha@v1")
    life.is_killed_while_fetching("flat@main", 12)
    for number in range(len(life.world.store_files())):
        life.a_file_of_the_store_is_spoiled(number, how, 77)
        life.verifies("alpha@v1", repair=True)
    life.the_users_own_files_are_as_they_were()
    life.teardown()


def test_what_is_proven_here_is_taken_before_what_a_partial_may_have(machine: type[StoreMachine]) -> None:
    life = machine()
    life.is_killed_while_fetching("beta@main", 13)
    life.fetches("alpha@v1")
    life.fetches("rival@main")
    life.fetches("alpha@v2")
    life.teardown()


def test_of_a_blob_that_was_cut_off_the_rest_is_taken(machine: type[StoreMachine]) -> None:
    life = machine()
    life.fetches_one_component("alpha@v1", 0)
    life.a_file_of_the_store_is_spoiled(14, "cut", 1)
    life.fetches_one_component("flat@main", 0)
    life.teardown()


@pytest.mark.parametrize("how", DAMAGES)
def test_whatever_a_file_became_gc_collects_or_says_what_it_cannot_read(
    machine: type[StoreMachine], how: str
) -> None:
    for number in range(8):
        life = machine()
        life.fetches_one_component("alpha@v1", 0)
        life.a_file_of_the_store_is_spoiled(number, how, 0)
        life.collects(True, 30_000, False)
        life.collects(False, 30_000, False)
        life.teardown()
