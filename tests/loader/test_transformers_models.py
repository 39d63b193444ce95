"""What docs/loading.md says of transformers' models, by the real transformers: no tensor is left without values."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import diachunk
from fixtures.programs import TRANSFORMERS, clean_environment, python_of
from fixtures.tiny_dia import TinyDia, tiny_dia

__all__ = ["tiny_dia"]

pytestmark = [pytest.mark.loopback, pytest.mark.timeout(600)]
CHECKOUT = Path(__file__).parents[2]

MADE = """
import json, sys
import torch
from transformers import AutoConfig, DiaForConditionalGeneration
from diachunk import load, load_into

target, files = sys.argv[1:]
weights = load(target)
config = AutoConfig.from_pretrained(files)
model = DiaForConditionalGeneration.from_pretrained(None, config=config, state_dict=weights)
state, wanted = model.state_dict(), DiaForConditionalGeneration.from_pretrained(files)
halved = DiaForConditionalGeneration.from_pretrained(
    None, config=config, dtype="bfloat16", state_dict=load(target, dtype="bf16")
)
with torch.device("meta"):
    left = load_into(DiaForConditionalGeneration(config), target).left_on_meta
print(json.dumps([
    all(torch.equal(state[name], tensor) for name, tensor in wanted.state_dict().items()),
    all(torch.equal(*both) for both in zip(model.buffers(), wanted.buffers(), strict=True)),
    all(state[name].data_ptr() == tensor.data_ptr() for name, tensor in weights.items()),
    sorted({str(each.dtype) for each in halved.parameters()}),
    any("rotary" in name for name in left),
]))
"""


def test_a_model_made_by_transformers_takes_the_tensors_themselves(tiny_dia: TinyDia, tmp_path: Path) -> None:
    out, home = tmp_path / "dia.json", tmp_path / "store"
    diachunk.publish([tiny_dia.model], name="lab/dia", out=out, store=False)
    diachunk.fetch(out, origins=[str(tiny_dia.model)], home=home)
    environment = clean_environment(tmp_path) | {
        "PYTHONPATH": str(CHECKOUT / "src"),
        "DIACHUNK_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [str(python_of(TRANSFORMERS)), "-c", MADE, str(out), str(tiny_dia.model)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [True, True, True, ["torch.bfloat16"], True]
