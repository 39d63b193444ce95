# /// script
# requires-python = ">=3.11"
# dependencies = ["diachunk[load]", "transformers>=5"]
# ///
"""Dia speaks, with nothing left to be pulled when it does: fetch, place and load the model and its vocoder.

    python examples/dia_tts.py [TARGET] --text "[S1] Hello." --out hello.wav
    python examples/dia_tts.py [TARGET] --way load --device auto --dtype bf16

--way placed: the files are shown where transformers looks for them, and transformers loads them from there, offline.
--way load:   both models are made without memory, and filled by diachunk: verified tensors, straight onto the device.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import sys
import wave
from collections.abc import Iterator
from typing import Any

import diachunk
from diachunk import load_into
from diachunk.errors import DiachunkError, Interrupted, UsageError

MODEL = "nari-labs/Dia-1.6B-0626"
RATE_HZ = 44_100
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def prepare(target: str, origins: list[str]) -> diachunk.Snapshot:
    """Everything that will be asked for, here and where programs look for it."""
    snapshot = fetched(target, origins)
    # What is not here by now would be a mistake, and is not downloaded behind anybody's back. Not said before the
    # fetch, which obeys it as well; before transformers is imported, because the hub's library looks only then.
    os.environ["HF_HUB_OFFLINE"] = "1"
    for place in diachunk.place(target).places:
        print(f"{place.component}: {place.shown}", file=sys.stderr)
    return snapshot


def fetched(target: str, origins: list[str]) -> diachunk.Snapshot:
    """With a bar, and what limits it or is wrong beside it: nobody should have to guess whether it hangs."""
    from tqdm import tqdm  # transformers brings it

    with tqdm(unit="B", unit_scale=True, desc=target, leave=False) as bar:

        def show(event: diachunk.Event) -> None:
            bar.update(event.bytes)
            if isinstance(event, diachunk.Status):
                bar.total = bar.n + event.left_bytes
                bar.set_postfix_str(event.limited_by)
            elif isinstance(event, diachunk.SourceTrouble):
                bar.write(f"{event.label}: {event.detail}", file=sys.stderr)

        return diachunk.fetch(target, origins=origins, progress=show)


def device_here(wanted: str) -> str:
    """That device, or for "auto" the best one.

    Raises:
        DiachunkError: it is not here. Asked now, and not after gigabytes were fetched.
    """
    import torch

    if wanted == "auto":
        mps = torch.backends.mps.is_available()
        wanted = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as error:
        said = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(f"no {wanted} here: {said}", hint="--device auto takes what there is") from error
    return wanted


def placed(device: str, dtype: str | None) -> tuple[Any, Any]:
    """(processor, model), as any program that uses transformers gets them."""
    from transformers import AutoProcessor, DiaForConditionalGeneration

    options = {"dtype": dtype} if dtype else {}
    model = DiaForConditionalGeneration.from_pretrained(MODEL, **options)
    return AutoProcessor.from_pretrained(MODEL), model.to(device)


def loaded(snapshot: diachunk.Snapshot, target: str, device: str, dtype: str | None) -> tuple[Any, Any]:
    """(processor, model), their tensors from diachunk."""
    from transformers import (
        DacConfig,
        DacModel,
        DiaConfig,
        DiaFeatureExtractor,
        DiaForConditionalGeneration,
        DiaProcessor,
        DiaTokenizer,
        GenerationConfig,
    )

    files, codec_files = snapshot.path("model"), snapshot.path("vocoder")
    with parameters_on_meta():
        model = DiaForConditionalGeneration(DiaConfig.from_pretrained(files))
        codec = DacModel(DacConfig.from_pretrained(codec_files))
    model.generation_config = GenerationConfig.from_pretrained(files)
    for module, component in ((model, "model"), (codec, "vocoder")):
        own = dtype if component == "model" else None
        filled = load_into(module, target, component, device=device, dtype=own)
        print(f"{component}: {filled}, in {filled.report.elapsed_s:.2f} s", file=sys.stderr)
        module.to(device).eval()  # buffers that no file holds
    processor = DiaProcessor(
        DiaFeatureExtractor.from_pretrained(files), DiaTokenizer.from_pretrained(files), audio_tokenizer=codec
    )
    return processor, model


@contextlib.contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Modules made in this block have parameters without memory, and real buffers: those that are not saved are
    computed by their modules, and nothing would fill them.
    """
    from torch import nn

    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    module_class: Any = nn.Module
    module_class.register_parameter = on_meta
    try:
        yield
    finally:
        module_class.register_parameter = register


def speak(processor: Any, model: Any, text: str, tokens: int) -> Any:
    """The waveform, one dimension, -1 to 1."""
    import torch

    inputs = processor(text=[text], padding=True, return_tensors="pt").to(model.device)
    torch.manual_seed(0)
    codes = model.generate(**inputs, max_new_tokens=tokens)
    return processor.batch_decode(codes)[0].detach().float().cpu().reshape(-1)


def write_wav(path: str, samples: Any) -> None:
    """16 bits, one channel."""
    import torch

    data = (samples.clamp(-1, 1) * 32767).to(torch.int16)
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(bytes(data.view(torch.uint8).tolist()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("target", nargs="?", default="dia-1.6b", metavar="TARGET")
    parser.add_argument("--origin", action="append", default=[], metavar="URL")
    parser.add_argument("--way", choices=("placed", "load"), default="placed")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps, auto")
    parser.add_argument("--dtype", choices=[*DTYPES, *DTYPES.values()], help="as in the files by default")
    parser.add_argument("--text", default="[S1] Nothing is pulled behind your back. [S2] Good.")
    parser.add_argument("--tokens", type=int, default=3072, help="at most; 86 are a second")
    parser.add_argument("--out", default="dia.wav")
    arguments = parser.parse_args()
    # Now, and not after gigabytes were fetched.
    missing = [each for each in ("torch", "transformers") if importlib.util.find_spec(each) is None]
    if missing:
        print(
            f"dia_tts: needs {' and '.join(missing)}: pip install 'diachunk[load]' 'transformers>=5'",
            file=sys.stderr,
        )
        return 2
    dtype = DTYPES.get(arguments.dtype, arguments.dtype)
    try:
        device = device_here(arguments.device)
        snapshot = prepare(arguments.target, arguments.origin)
        if arguments.way == "placed":
            processor, model = placed(device, dtype)
        else:
            processor, model = loaded(snapshot, arguments.target, device, dtype)
        samples = speak(processor, model, arguments.text, arguments.tokens)
    except KeyboardInterrupt:
        print("dia_tts: stopped; what was fetched is kept: run the same again to resume", file=sys.stderr)
        return Interrupted.exit_code
    except DiachunkError as error:
        print(f"dia_tts: {error}", file=sys.stderr)
        return error.exit_code
    write_wav(arguments.out, samples)
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
