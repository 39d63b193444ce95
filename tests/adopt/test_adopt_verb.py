"""diachunk adopt, as a person uses it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import diachunk
from diachunk.api.context import Context
from diachunk.manifest import decode
from diachunk.testing.hub import Hub
from fixtures import damage
from fixtures.checkpoints import blobs_of
from fixtures.command_line import events_of, run
from fixtures.foreign import WEIGHTS, Lab
from fixtures.tiny_dia import TinyDia, tiny_dia

__all__ = ["tiny_dia"]
pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]


def components_of(stdout: str) -> dict[str, dict[str, Any]]:
    events = [each for each in events_of(stdout) if each["event"] == "component"]
    return {f"{each['checkpoint']}/{each['component']}": each for each in events}


@pytest.fixture
def knowing(lab: Lab, base: Path) -> Path:
    """The default store, which knows both checkpoints and holds nothing of them."""
    home = base / "default-store"
    for file in (lab.manifest_file, lab.native_file):
        Context.make(home).store.catalog.add(decode(file.read_bytes()))
    return home


def test_it_finds_proves_and_says_where_without_a_copy(lab: Lab, base: Path, knowing: Path) -> None:
    lab.put_cache(base)
    lab.put_weights(base)
    done = run("adopt")
    assert done.returncode == 0, done.stderr
    assert "lab/native@main vocoder: 3.1 MB found in ~/.cache/descript/dac, nothing to fetch" in done.stdout
    assert f"{lab.manifest.ref}: 5.1 MB found in ~/.cache/huggingface/hub/models--lab--dia" in done.stdout
    assert "nothing was copied" in done.stderr
    assert blobs_of(knowing) == []
    plan = diachunk.plan(lab.native.hex_id)
    assert plan.present_bytes == plan.total_bytes
    again = run("adopt")
    assert again.stdout == ""
    assert "nothing new found" in again.stderr


def test_what_is_proven_is_not_read_again(lab: Lab, base: Path, knowing: Path) -> None:
    lab.put_weights(base)
    run("adopt")
    store = Context.make(knowing).store
    (file,) = lab.native.components[0].files
    assert store.blobs.find(file.blake3, file.size, file.chunks).presence.name == "PROVEN"


def test_a_dry_run_reads_and_notes_nothing(lab: Lab, base: Path, knowing: Path) -> None:
    weights = lab.put_weights(base)
    damage.flip(weights, 2_000_000)
    done = run("adopt", "--dry-run")
    assert "3.1 MB found in ~/.cache/descript/dac, not checked yet" in done.stdout
    assert list((knowing / "adopted").iterdir()) == []


def test_a_damaged_file_is_told_with_the_command_that_completes_it(
    lab: Lab, base: Path, knowing: Path
) -> None:
    weights = lab.put_weights(base)
    damage.flip(weights, 2_000_000)
    done = run("adopt")
    assert "nothing usable, 307.2 kB to fetch" in done.stdout
    assert "~/.cache/descript/dac/weights_44khz_8kbps_0.0.1.pth: 1 of" in done.stdout
    assert f"`diachunk fetch {lab.native.hex_id[:16]}` fetches the 307.2 kB that are left" in done.stderr
    assert (
        diachunk.plan(lab.native.hex_id).disk_bytes == lab.native.total_bytes
    )  # it is known not to be whole
    fetched = diachunk.fetch(lab.native.hex_id, origins=[lab.origin])
    assert fetched.report.fetched_bytes == 307_200


def test_a_directory_of_the_user_s_serves_the_fetch_that_follows(
    lab: Lab, base: Path, knowing: Path, tmp_path: Path
) -> None:
    """Also what is not whole there: the fetch itself would not look in it."""
    old = tmp_path / "old" / "checkpoint.pth"
    old.parent.mkdir()
    shutil.copyfile(lab.weights, old)
    os.truncate(old, 2_500_000)
    done = run("adopt", tmp_path / "old", "--json")
    share = components_of(done.stdout)["lab/native@main/vocoder"]
    assert 0 < share["left_bytes"] < 1_000_000
    assert share["spoiled"][0]["location"] == str(old)
    fetched = diachunk.fetch(lab.native.hex_id, origins=[lab.origin])
    assert fetched.report.fetched_bytes == share["left_bytes"]
    assert old.stat().st_size == 2_500_000


def test_one_checkpoint_alone_can_be_named_also_by_its_file(lab: Lab, base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "weights.pth"
    shutil.copyfile(lab.weights, copy)
    done = run("adopt", copy, "--for", lab.native_file, "--json")
    (share,) = components_of(done.stdout).values()
    assert (share["found_bytes"], share["left_bytes"]) == (lab.native.total_bytes, 0)
    assert diachunk.fetch(lab.native_file).report.fetched_bytes == 0


def test_a_place_that_is_not_there_is_a_usage_error(base: Path) -> None:
    done = run("adopt", "/no/such/place")
    assert done.returncode == 2
    assert "/no/such/place" in done.stderr


def test_dia_as_transformers_left_it_is_adopted_by_the_recipe_that_ships(
    lab: Lab, tiny_dia: TinyDia, base: Path
) -> None:
    """The Hub is asked for names and digests alone, by the fetch that follows."""
    from fixtures.programs import HUB_2, said
    from fixtures.programs import run as run_program

    with Hub() as hub:
        tiny_dia.put_on(hub)
        code = "import huggingface_hub as h; [h.snapshot_download(each) for each in %r]"
        repositories = ["nari-labs/Dia-1.6B-0626", "descript/dac_44khz"]
        cache = str(base / ".cache" / "huggingface" / "hub")
        said(run_program(HUB_2, code % repositories, base, HF_ENDPOINT=hub.url, HF_HUB_CACHE=cache))
        done = run("adopt", "--for", "dia-1.6b", "--json")
        shares = components_of(done.stdout)
        assert shares["dia-1.6b@main/model"]["found_bytes"] > 0
        assert shares["dia-1.6b@main/vocoder"]["found_bytes"] > 0
        before = hub.bytes_sent("*")
        fetched = run("fetch", "dia-1.6b", HF_ENDPOINT=hub.url)
        assert fetched.returncode == 0, fetched.stderr
        assert hub.bytes_sent("*") == before


def test_the_vocoder_is_looked_for_as_the_recipe_states_it(base: Path) -> None:
    weights = base / WEIGHTS
    weights.parent.mkdir(parents=True)
    with weights.open("wb") as file:
        file.truncate(306_717_287)
    done = run("adopt", "--for", "dia-1.6b-native", "--json")
    share = components_of(done.stdout)["dia-1.6b-native@main/vocoder"]
    assert (share["found_bytes"], share["left_bytes"]) == (0, 306_717_287)
    assert "a88eed82" in share["spoiled"][0]["why"]
