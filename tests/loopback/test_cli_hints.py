"""Hints of the command line that are there to be copied."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from diachunk.testing import faults
from diachunk.testing.hub import Hub
from diachunk.testing.hub_faults import Part
from diachunk.testing.servers import Nginx
from fixtures.checkpoints import Checkpoint, assert_same_files, published
from fixtures.command_line import events_of, run

pytestmark = pytest.mark.loopback


def test_a_server_that_only_the_manifest_names_is_told_once_with_the_command_that_names_it(
    small: Checkpoint, quick: None, tmp_path: Path
) -> None:
    with Nginx(small.root) as origin:
        pointing = published(small.root, origins=[origin.url], out=tmp_path / "pointing.json")
        refused = run("fetch", pointing.manifest_file)
        assert refused.returncode == 5
        assert refused.stderr.count("that only the manifest names") == 1
        hint = refused.stderr.splitlines()[-1]
        assert hint.strip().startswith("if you trust it: `diachunk fetch ")
        command = shlex.split(hint.partition("`")[2].rstrip("`"))
        assert command[1:] == ["fetch", str(pointing.manifest_file), "--origin", origin.url]
        done = run(*command[1:])
    assert done.returncode == 0, done.stderr
    assert_same_files(Path(done.stdout.strip()), small)


def test_while_the_hub_is_asked_it_is_said_for_whom_one_waits() -> None:
    pytest.importorskip("huggingface_hub")
    with Hub() as hub:
        hub.add("lab/small", {"config.json": b"{}\n"})
        hub.rate_limit(2, retry_after_s=4)
        done = run("fetch", "hub:lab/small", HF_ENDPOINT=hub.url)
        assert done.returncode == 0, done.stderr
        first = done.stderr.splitlines()[0]
        assert first.startswith(f"waiting for the Hub ({hub.url.removeprefix('http://')}) for ")
        hub.rate_limit(2, retry_after_s=4)
        as_json = run("fetch", "hub:lab/small", "-n", "--json", HF_ENDPOINT=hub.url)
    assert [each["event"] for each in events_of(as_json.stdout)] == ["notice", "plan", "done"]


def test_a_commit_is_cut_short_where_people_read_it() -> None:
    pytest.importorskip("huggingface_hub")
    with Hub() as hub:
        commit = hub.add("lab/small", {"config.json": b"{}\n"})
        done = run("fetch", "hub:lab/small", HF_ENDPOINT=hub.url)
    assert done.stderr.startswith(f"lab/small@{commit[:12]}: 3 B to fetch")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://huggingface.co/lab/small", "hub:lab/small"),
        ("https://huggingface.co/lab/small/tree/v2", "hub:lab/small@v2"),
        ("https://hf.co/lab/small/?library=transformers", "hub:lab/small"),
    ],
)
def test_a_page_of_the_hub_is_no_manifest_and_its_name_as_a_target_is_told(url: str, named: str) -> None:
    done = run("fetch", url)
    assert done.returncode == 2
    assert "is a page of the Hub" in done.stderr
    assert done.stderr.splitlines()[-1] == f"  name it {named}"


def test_what_fetch_printed_is_no_target_and_what_would_do_is_told(tmp_path: Path) -> None:
    done = run("show", f"{tmp_path}")
    assert done.returncode == 2
    assert f"{tmp_path} is a directory, no manifest" in done.stderr
    assert "`diachunk ls` lists the names" in done.stderr
    assert f"diachunk publish {tmp_path} --name ORG/NAME" in done.stderr


def test_a_login_page_in_place_of_files_says_where_to_sign_in() -> None:
    pytest.importorskip("huggingface_hub")
    with Hub() as hub:
        hub.add("lab/small", {"config.json": b"{}\n"})
        hub.fail(Part.BYTES, faults.Html())
        done = run("fetch", "hub:lab/small", HF_ENDPOINT=hub.url)
    assert done.returncode == 5
    assert "sign in there" in done.stderr.splitlines()[-1]


def test_a_part_that_a_recipe_has_not_is_told_with_those_that_it_has(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    recipe = tmp_path / "lab.toml"
    parts = (f'[[component]]\nname = "{each}"\nhub = "lab/{each}"\n' for each in ("model", "vocoder"))
    recipe.write_text("".join(['name = "lab/dia"\n', *parts]))
    with Hub() as hub:
        for each in ("model", "vocoder"):
            hub.add(f"lab/{each}", {"config.json": each.encode()})
        done = run("fetch", recipe, "-c", "modle", HF_ENDPOINT=hub.url)
    assert done.returncode == 2
    assert "lab/dia@main has no component 'modle'" in done.stderr
    assert "it has: model, vocoder" in done.stderr


def test_a_file_that_the_hub_lists_and_does_not_have_is_no_matter_of_prefixes() -> None:
    pytest.importorskip("huggingface_hub")
    with Hub() as hub:
        hub.add("lab/small", {"config.json": b"{}\n"})
        hub.fail(Part.RESOLVE, faults.NotFound())
        done = run("fetch", "hub:lab/small", HF_ENDPOINT=hub.url)
    assert done.returncode == 5
    assert "404 Not Found" in done.stderr
    assert done.stderr.splitlines()[-1].strip().startswith("it was moved or taken away there")
