"""The lock of a project: what it pins, what may write it, and what becomes of one that was tampered with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import diachunk
from diachunk.api.sets.checkpoint_set import Planned, PreloadFailed
from diachunk.api.sets.lockfile import parse_lock
from diachunk.api.sets.preloading import plan_preload, preload
from diachunk.errors import DiachunkError, TrustError, UsageError
from fixtures.checkpoints import Checkpoint
from fixtures.preload import Project, small


def store() -> Path:
    return Path(os.environ["DIACHUNK_HOME"])


def locked(project: Project) -> dict[str, str]:
    """Target -> id, as the lock says."""
    return {target: entry.hex_id for target, entry in parse_lock(project.lock.read_text(), "lock").items()}


def error_of(planned: Planned) -> DiachunkError:
    assert planned.error is not None
    return planned.error


def failures_of(project: Project, locking: str) -> list[DiachunkError]:
    with pytest.raises(PreloadFailed) as caught:
        preload(project.directory, locking=locking)
    return [error for _, error in caught.value.failures]


def replaced(project: Project, tmp_path: Path, fill: bytes = b"9") -> Checkpoint:
    """./one.json names other weights from now on: the target moved."""
    moved = small(tmp_path / f"moved-{fill.hex()}", "lab/one", {"model": fill * 100_000})
    (project.directory / "one.json").write_bytes(moved.manifest_file.read_bytes())
    project.write(
        [{"target": "./one.json", "origins": [str(moved.root)]}, {"target": "./two.json"}],
    )
    return moved


def test_a_lock_is_written_beside_the_project_file(project: Project) -> None:
    preload()
    one, two = project.one.manifest.hex_id, project.two.manifest.hex_id
    assert locked(project) == {"./one.json": one, "./two.json": two}
    assert sorted(os.listdir(project.directory)) == ["diachunk.lock", "diachunk.toml", "one.json", "two.json"]


def test_the_same_set_gives_the_same_lock_everywhere(project: Project, tmp_path: Path) -> None:
    preload()
    first = project.lock.read_bytes()
    project.lock.unlink()
    project.write(["./two.json", "./one.json"])
    preload(home=tmp_path / "another-machine")
    assert project.lock.read_bytes() == first


def test_what_is_locked_is_fetched_although_the_target_moved_on(project: Project, tmp_path: Path) -> None:
    preload()
    before = project.lock.read_bytes()
    moved = replaced(project, tmp_path)
    done = preload()
    assert done["./one.json"].manifest.hex_id == project.one.manifest.hex_id != moved.manifest.hex_id
    assert project.lock.read_bytes() == before
    exact = preload(locking="exact")
    assert exact["./one.json"].manifest.hex_id == project.one.manifest.hex_id


def test_a_local_name_that_moved_on_is_no_way_around_the_lock(project: Project, tmp_path: Path) -> None:
    diachunk.publish([f"model={project.one.root / 'model'}"], name="lab/named")
    project.write(["lab/named"])
    old = preload()["lab/named"]
    assert old.directory.name == "named@main"
    other = diachunk.publish([f"model={project.two.root / 'model'}"], name="lab/named", force=True)
    still = preload()["lab/named"]
    assert still.manifest.id == old.manifest.id != other.manifest.id
    assert diachunk.plan("lab/named").hex_id == other.manifest.hex_id, "the name was not moved back"
    assert preload(locking="update")["lab/named"].manifest.id == other.manifest.id
    assert locked(project) == {"lab/named": other.manifest.hex_id}


def test_updating_looks_up_anew_and_drops_what_is_named_no_more(project: Project, tmp_path: Path) -> None:
    preload()
    moved = replaced(project, tmp_path)
    project.write([{"target": "./one.json", "origins": [str(moved.root)]}])
    preload(locking="update")
    assert locked(project) == {"./one.json": moved.manifest.hex_id}


def test_what_the_lock_lacks_is_added_and_the_rest_kept(project: Project, tmp_path: Path) -> None:
    project.write(["./one.json"])
    preload()
    moved = replaced(project, tmp_path)
    preload()
    assert locked(project) == {
        "./one.json": project.one.manifest.hex_id,
        "./two.json": project.two.manifest.hex_id,
    }
    assert moved.manifest.hex_id not in project.lock.read_text()


def test_exact_needs_a_lock_that_covers_everything_and_never_writes_it(project: Project) -> None:
    with pytest.raises(UsageError, match="no such lock"):
        preload(locking="exact")
    project.write(["./one.json"])
    preload()
    before = project.lock.stat()
    project.write()
    with pytest.raises(UsageError, match=r"does not cover \./two\.json"):
        preload(locking="exact")
    project.write(["./one.json"])
    preload(locking="exact")
    after = project.lock.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_on_a_fresh_machine_the_lock_decides(project: Project, tmp_path: Path) -> None:
    preload()
    fresh = preload(locking="exact", home=tmp_path / "fresh")
    assert [each.manifest.hex_id for each in fresh] == [*locked(project).values()]
    replaced(project, tmp_path)
    with pytest.raises(PreloadFailed) as caught:
        preload(locking="exact", home=tmp_path / "fresher")
    (target, error), *rest = caught.value.failures
    assert (target, rest, type(error)) == ("./one.json", [], TrustError)
    assert project.one.manifest.hex_id in error.message
    assert caught.value.exit_code == 7


def test_what_cannot_be_had_anywhere_is_a_matter_of_trust_not_of_use(
    project: Project, tmp_path: Path
) -> None:
    preload()
    (project.directory / "one.json").unlink()
    assert len(preload(locking="exact")) == 2, "what is here needs no target"
    error = error_of(plan_preload(home=tmp_path / "fresh").checkpoints[0])
    assert type(error) is TrustError
    assert project.one.manifest.hex_id in error.message
    assert "no such manifest file" in error.message


def test_a_lock_somebody_changed_is_noticed(project: Project) -> None:
    preload()
    one, two = project.one.manifest.hex_id, project.two.manifest.hex_id
    text = project.lock.read_text()
    project.lock.write_text(text.replace(one, "0" * 64))
    (error,) = failures_of(project, "exact")
    assert type(error) is TrustError
    assert "0" * 64 in error.message
    assert one in error.message
    project.lock.write_text(text.replace(one, two))  # another checkpoint that is here
    (error,) = failures_of(project, "exact")
    assert "somebody changed the lock" in error.message
    project.lock.write_text("half a " + text)
    for locking in ("keep", "exact"):
        with pytest.raises(UsageError, match="not TOML"):
            preload(locking=locking)
    preload(locking="update")
    assert project.lock.read_text() == text


def test_a_damaged_manifest_here_is_got_again_by_the_target(project: Project) -> None:
    preload()
    (store() / "manifests" / f"{project.one.manifest.hex_id}.json").write_text("{}")
    assert preload(locking="exact")["./one.json"].manifest.id == project.one.manifest.id
