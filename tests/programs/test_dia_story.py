"""The whole story: one command, then the network is gone, and the unmodified programs load and speak."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from diachunk.testing.bad_server import BadServer
from diachunk.testing.hub import Hub
from fixtures.programs import TRANSFORMERS, diachunk, python_of, run, said
from fixtures.tiny_dia import (
    MODEL,
    MODEL_COMMIT,
    MODEL_FILES,
    SPEAK,
    VOCODER,
    VOCODER_COMMIT,
    TinyDia,
)

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]

RECIPES = Path(__file__).parents[2] / "manifests"


def speak(home: Path, **environment: str) -> list[Any]:
    """What transformers makes of a sentence: number of samples, and their digest."""
    words = said(run(TRANSFORMERS, SPEAK, home, **environment)).splitlines()[-1]
    waveform: list[Any] = json.loads(words)
    return waveform


def test_one_command_and_transformers_speaks_offline_as_it_did_online(hub: Hub, tmp_path: Path) -> None:
    online = speak(tmp_path / "online", HF_ENDPOINT=hub.url)
    asked = len(hub.requests)
    home = tmp_path / "offline"
    snapshot = said(diachunk(home, "fetch", "dia-1.6b", "--place", HF_ENDPOINT=hub.url))
    taken = {each.file for each in hub.requests[asked:] if each.status in (200, 206) and each.file}
    hub.close()

    assert taken == {*MODEL_FILES, "model.safetensors"}  # none of the two other copies of the weights
    assert (Path(snapshot) / "vocoder" / "model.safetensors").is_file()
    assert speak(home, HF_HUB_OFFLINE="1") == online
    assert online[0] > 10_000


def test_a_moved_cache_still_speaks(hub: Hub, tmp_path: Path) -> None:
    """Fetched first, placed later and elsewhere, with the hub gone by then."""
    home, elsewhere = tmp_path / "home", tmp_path / "cache"
    said(diachunk(home, "fetch", "dia-1.6b", HF_ENDPOINT=hub.url))
    hub.close()
    said(diachunk(home, "place", "dia-1.6b", "--into", "hub", HF_HUB_CACHE=str(elsewhere)))
    moved = elsewhere.rename(tmp_path / "moved")
    samples, _ = speak(home, HF_HUB_OFFLINE="1", HF_HUB_CACHE=str(moved))
    assert samples > 10_000


def test_repositories_without_a_recipe_speak_too(hub: Hub, tmp_path: Path) -> None:
    for repository in (MODEL, VOCODER):
        said(diachunk(tmp_path, "fetch", f"hub:{repository}", "--place", HF_ENDPOINT=hub.url))
    hub.close()
    samples, _ = speak(tmp_path, HF_HUB_OFFLINE="1")
    assert samples > 10_000
    listing = (
        tmp_path / "huggingface" / "hub" / "models--descript--dac_44khz" / "trees" / f"{VOCODER_COMMIT}.json"
    )
    assert set(json.loads(listing.read_text())["files"]) == {
        "config.json",
        "preprocessor_config.json",
        "model.safetensors",
    }


def test_a_program_is_started_with_all_that_its_project_names(hub: Hub, tmp_path: Path) -> None:
    """Nothing but the project file is there at first; the second time the hub is not needed."""
    (tmp_path / "diachunk.toml").write_text('checkpoints = ["dia-1.6b"]\n')
    program = ("run", "--", python_of(TRANSFORMERS), "-c", SPEAK)
    first = said(diachunk(tmp_path, *program, HF_ENDPOINT=hub.url)).splitlines()[-1]
    # the vocoder came through diachunk, in Range requests, and was not asked for again
    assert all(each.range for each in hub.requests if each.file)
    hub.close()
    again = said(diachunk(tmp_path, *program, HF_ENDPOINT=hub.url)).splitlines()[-1]
    assert again == first
    assert json.loads(first)[0] > 10_000


def test_a_checkpoint_that_shares_the_vocoder_fetches_none_of_it(hub: Hub, tmp_path: Path) -> None:
    hub.add(
        "lab/other", {"config.json": b"{}", "other.safetensors": hashlib.shake_256(b"other").digest(200_000)}
    )
    other = tmp_path / "other.toml"
    shipped = (RECIPES / "dia-1.6b.toml").read_text()
    vocoder = shipped[shipped.rindex("[[component]]") :]
    other.write_text(f'name = "lab/other"\n[[component]]\nname = "model"\nhub = "lab/other"\n{vocoder}')
    said(diachunk(tmp_path, "fetch", "dia-1.6b", HF_ENDPOINT=hub.url))
    sent = hub.bytes_sent()
    snapshot = Path(said(diachunk(tmp_path, "fetch", other, HF_ENDPOINT=hub.url)))
    assert hub.bytes_sent() - sent == 2 + 200_000
    assert (snapshot / "vocoder" / "model.safetensors").is_file()


# The native form

LOAD_VOCODER = """
import json, pathlib, torch
path = pathlib.Path.home() / ".cache/descript/dac/weights_44khz_8kbps_0.0.1.pth"  # where dac.utils.download() looks
weights = torch.load(path, map_location="cpu", weights_only=True)
assert (pathlib.Path.home() / ".cache/dia/vocoder/checkpoint.pth").read_bytes() == path.read_bytes()
print(json.dumps([len(weights["state_dict"]), weights["metadata"]["kwargs"]["sample_rate"]]))
"""

LOAD_MODEL = f"""
import torch
from huggingface_hub import PyTorchModelHubMixin

class Dia(torch.nn.Module, PyTorchModelHubMixin):
    # as the dia package's: model.safetensors is asked for first, and pytorch_model.bin if that does not exist
    def __init__(self, **config):
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.embedding = torch.nn.Embedding(12, 12)

print(float(Dia.from_pretrained("{MODEL}").encoder.embedding.weight.sum()))
"""


def native_recipe(weights: Path, url: str) -> str:
    """The shipped recipe, with the vocoder's release file replaced by a tiny one."""
    text = (RECIPES / "dia-1.6b-native.toml").read_text()
    lines = []
    for line in text.splitlines():
        key = line.partition(" = ")[0]
        if key == "url":
            line = f'url = "{url}"'
        elif key == "size":
            line = f"size = {weights.stat().st_size}"
        elif key == "sha256":
            line = f'sha256 = "{hashlib.sha256(weights.read_bytes()).hexdigest()}"'
        lines.append(line)
    return "\n".join(lines)


def test_the_native_files_load_where_the_native_programs_look(
    hub: Hub, tiny_dia: TinyDia, tmp_path: Path
) -> None:
    recipe = tmp_path / "native.toml"
    with BadServer(tiny_dia.native) as releases:
        recipe.write_text(native_recipe(tiny_dia.native / "checkpoint.pth", f"{releases.url}/checkpoint.pth"))
        said(diachunk(tmp_path, "fetch", recipe, "--place", HF_ENDPOINT=hub.url))
    online = said(run(TRANSFORMERS, LOAD_MODEL, tmp_path / "online", HF_ENDPOINT=hub.url))
    hub.close()

    tensors, rate = json.loads(said(run(TRANSFORMERS, LOAD_VOCODER, tmp_path)))
    assert (tensors, rate) == (301, 44100)
    offline = run(TRANSFORMERS, LOAD_MODEL, tmp_path, HF_HUB_OFFLINE="1")
    assert said(offline) == online
    shown = tmp_path / ".cache" / "dia" / "model"
    assert (shown / "config.json").read_bytes() == (tiny_dia.model / "config.json").read_bytes()
    assert (shown / "pytorch_model.bin").stat().st_size == (
        tiny_dia.native / "pytorch_model.bin"
    ).stat().st_size
    assert MODEL_COMMIT in {each.name for each in (tmp_path / "huggingface").rglob("snapshots/*")}
