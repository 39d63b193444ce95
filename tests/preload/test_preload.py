"""The library: a set of checkpoints made complete."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import diachunk
from diachunk.api.sets.checkpoint_set import NothingNamed, PreloadFailed
from diachunk.api.sets.lockfile import parse_lock
from diachunk.api.sets.preloader import Preloader
from diachunk.api.sets.preloading import plan_preload, preload
from diachunk.errors import DiachunkError, StoreError, TransferIncomplete, TrustError, UsageError
from diachunk.transfer.progress import Event, Notice
from fixtures.checkpoints import assert_same_files, assert_store_is_right
from fixtures.preload import Project


def store() -> Path:
    return Path(os.environ["DIACHUNK_HOME"])


def locked(project: Project) -> dict[str, str]:
    """Target -> id, as the lock says."""
    return {target: entry.hex_id for target, entry in parse_lock(project.lock.read_text(), "lock").items()}


def test_everything_is_fetched_and_nothing_twice(project: Project) -> None:
    plan = plan_preload()
    assert (plan.total_bytes, plan.fetch_bytes, plan.disk_bytes) == (500_000, 500_000, 500_000)
    assert [each.plan.total_bytes for each in plan.checkpoints if each.plan] == [300_000, 250_000]
    assert not plan.complete
    events: list[Event] = []
    done = preload(progress=events.append)
    assert_same_files(done["./one.json"].directory, project.one)
    assert_same_files(done.snapshots[1].directory, project.two)
    assert sum(each.report.fetched_bytes for each in done) == 500_000
    assert sum(each.bytes for each in events) == 550_000
    assert_store_is_right(store())
    again = plan_preload()
    assert again.complete
    assert (again.present_bytes, again.fetch_bytes) == (500_000, 0)


def test_a_path_names_another_project_than_that_of_the_working_directory(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NothingNamed):
        plan_preload()
    for path in (project.directory, project.file, os.path.relpath(project.file)):
        assert len(plan_preload(path).checkpoints) == 2
    with pytest.raises(UsageError, match="no such project file"):
        plan_preload(tmp_path / "nowhere")


def test_the_users_config_names_a_set_too_and_has_no_lock(project: Project, base: Path) -> None:
    project.write()
    config = base / "config" / "diachunk" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'checkpoints = ["{project.directory}/two.json"]\norigins = ["{project.two.root}"]\n')
    project.file.unlink()
    assert plan_preload().named_by == str(config)
    preload()
    assert not project.lock.exists()
    for locking in ("exact", "update"):
        with pytest.raises(UsageError, match="have no lock"):
            plan_preload(locking=locking)


def test_a_project_without_checkpoints_adds_its_settings_to_the_users_set(
    project: Project, base: Path
) -> None:
    config = base / "config" / "diachunk" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'checkpoints = ["{project.directory}/two.json"]\n')
    project.file.write_text(f'origins = ["{project.two.root}"]\n')
    assert len(preload()) == 1
    assert not project.lock.exists()


def test_components_origins_and_directories_of_each(project: Project) -> None:
    project.write(
        [{"target": "./one.json", "components": ["vocoder"]}, {"target": "./two.json", "to": "weights"}]
    )
    one, two = preload()
    assert_same_files(one.directory, project.one, {"vocoder"})
    assert two.directory == project.directory / "weights"
    assert_same_files(project.directory / "weights", project.two)


def test_the_settings_of_the_project_hold_for_its_fetches(project: Project) -> None:
    project.write(extra="[limits]\nmanifest_chunks = 1")
    with pytest.raises(UsageError, match="no such limit"):
        preload()
    project.write(extra="[limits]\nlanes = 1\npatience_s = 2.5")
    config = Preloader().config
    assert (config.limits.lanes, config.limits.patience_s) == (1, 2.5)


# --- trouble -----------------------------------------------------------------------------------------------


def test_one_that_fails_stops_no_other_and_the_worst_is_told(project: Project, quick: None) -> None:
    project.write(["lab/unknown", "./one.json", {"target": "./two.json", "components": ["voc"]}])
    with pytest.raises(PreloadFailed) as caught:
        preload()
    assert [target for target, _ in caught.value.failures] == ["lab/unknown", "./two.json"]
    assert caught.value.exit_code == 2
    assert caught.value.message.startswith("2 of 3 checkpoints not complete: lab/unknown: nothing")
    assert locked(project) == {"./one.json": project.one.manifest.hex_id}


def test_the_exit_code_is_that_of_what_trying_again_does_not_cure() -> None:
    again, never = TransferIncomplete("x"), UsageError("y")
    assert PreloadFailed([("a", again), ("b", never)], 2).exit_code == 2
    assert not PreloadFailed([("a", again), ("b", never)], 2).retryable
    assert PreloadFailed([("a", never), ("b", TrustError("z"))], 2).exit_code == 7
    alone = PreloadFailed([("a", again)], 2)
    assert (alone.exit_code, alone.retryable) == (5, True)


def test_a_transfer_that_fails_leaves_the_others_complete(project: Project, quick: None) -> None:
    project.file.write_text(
        f'checkpoints = ["./one.json", {{target = "./two.json", origins = ["{project.two.root}"]}}]\n'
    )
    with pytest.raises(PreloadFailed) as caught:
        preload()
    assert (caught.value.exit_code, caught.value.retryable) == (5, True)
    assert locked(project) == {"./two.json": project.two.manifest.hex_id}
    assert_same_files(diachunk.fetch("./two.json").directory, project.two)


def test_a_directory_that_takes_no_lock_is_told_and_the_weights_are_there(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, entries: object) -> None:
        raise StoreError(f"cannot write {path}: Permission denied")

    monkeypatch.setattr("diachunk.api.sets.locking.write_lock", refuse)
    events: list[Event] = []
    assert len(preload(progress=events.append)) == 2
    (notice,) = [each.text for each in events if isinstance(each, Notice)]
    assert "Permission denied" in notice
    with pytest.raises(StoreError, match="Permission denied"):
        preload(locking="update")


def test_two_at_once_in_one_project(project: Project) -> None:
    outcomes: list[object] = []

    def once() -> None:
        try:
            outcomes.append([each.manifest.hex_id for each in preload(project.directory)])
        except DiachunkError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=once) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wanted = [project.one.manifest.hex_id, project.two.manifest.hex_id]
    assert outcomes == [wanted] * 3
    assert [*locked(project).values()] == wanted
    assert_store_is_right(store())


def test_two_checkpoints_do_not_replace_each_other_in_one_directory(project: Project) -> None:
    project.write([{"target": "./one.json", "to": "weights"}, {"target": "./two.json", "to": "./weights/"}])
    with pytest.raises(PreloadFailed, match="cannot both go there") as caught:
        preload()
    assert caught.value.exit_code == 2
    assert_same_files(project.directory / "weights", project.one)
    project.write(
        [
            {"target": "./one.json", "components": ["model"], "to": "weights"},
            {"target": "./two.json", "components": ["vocoder"], "to": "weights"},
        ]
    )
    assert len(preload()) == 2
