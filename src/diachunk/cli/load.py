"""diachunk load: the verb. What it does is diachunk.load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from diachunk.cli import text
from diachunk.cli.complete import complete_component, complete_target, offer
from diachunk.cli.options import Json, Origins, Quiet, Verbose
from diachunk.cli.talk import Talk, stopping_means

if TYPE_CHECKING:
    from diachunk.loader.events import LoadPlan, LoadReport

_Target = Annotated[str, typer.Argument(metavar="TARGET", autocompletion=complete_target, hidden=True)]
_Component = Annotated[
    str | None,
    typer.Option(
        "-c",
        "--component",
        metavar="C",
        help="Which one; may be left out if there is only one.",
        autocompletion=complete_component,
    ),
]
_Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="D",
        help="cpu, cuda, cuda:1, mps or auto: the best that is here.",
        autocompletion=offer("auto", "cpu", "cuda", "mps"),
    ),
]
_Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="T",
        help="What floats become: bf16, fp16, fp32, ... Left out: as they are.",
        autocompletion=offer("bf16", "fp16", "fp32"),
    ),
]
_Keep = Annotated[
    list[str] | None,
    typer.Option("--keep-dtype", metavar="GLOB", help="Tensors that are not cast (may be given again)."),
]
_Tensors = Annotated[
    list[str] | None, typer.Option("--tensors", metavar="GLOB", help="Only these (may be given again).")
]
_Always = Annotated[bool, typer.Option("--always", help="Hash all, also what was verified before.")]
_Fetch = Annotated[bool, typer.Option("--fetch", help="Fetch what is not here, and load it meanwhile.")]
_Repair = Annotated[bool, typer.Option("--repair", help="Fetch again what is damaged, and go on.")]
_Code = Annotated[
    bool,
    typer.Option("--allow-code", help="Also pickles that run code while they are read: if you trust them."),
]


def load(
    target: _Target,
    component: _Component = None,
    device: _Device = "auto",
    dtype: _Dtype = None,
    keep_dtype: _Keep = None,
    tensors: _Tensors = None,
    always: _Always = False,
    fetch: _Fetch = False,
    repair: _Repair = False,
    origin: Origins = None,
    allow_code: _Code = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Load a component's tensors: does it work, and how fast?

    What is hashed is what is loaded. The program that needs the tensors calls diachunk.load, which takes the
    same options.
    """
    talk = Talk(as_json=as_json, quiet=quiet, verbose=verbose)

    from diachunk.api.loading.load import load as load_tensors
    from diachunk.cli.load_view import show_load

    kept = "what is verified is kept: run the same again to resume" if fetch else "nothing was changed"
    with stopping_means(kept), show_load(talk, tell_plan) as listener:
        loaded = load_tensors(
            target,
            component,
            device,
            dtype,
            tensors=tensors or None,
            keep_dtype=keep_dtype or (),
            verify="always" if always else "stamp",
            progress=listener,
            repair=repair,
            fetch=fetch,
            origins=origin or (),
            allow_code=allow_code,
        )
    _conclude(talk, loaded.report)


def tell_plan(talk: Talk, plan: LoadPlan) -> None:
    """What is going to be done, before it is."""
    parts = []
    if plan.mapped_bytes:
        parts.append(f"{text.size(plan.mapped_bytes)} to map")
    if plan.read_bytes:
        parts.append(f"{text.size(plan.read_bytes)} to read")
    parts.append(f"{text.size(plan.hashed_bytes)} to hash" if plan.hashed_bytes else "nothing to hash")
    free = "" if plan.free_bytes is None else f", {text.size(plan.free_bytes)} free"
    talk.say(
        f"{plan.component or 'all files'}: {text.count(plan.tensors, 'tensor')}, {', '.join(parts)}; "
        f"onto {plan.device}{f' as {plan.dtype}' if plan.dtype else ''}, {text.size(plan.result_bytes)}{free}"
    )
    talk.emit(
        "plan",
        component=plan.component,
        device=plan.device,
        dtype=plan.dtype or None,
        tensors=plan.tensors,
        total_bytes=plan.total_bytes,
        read_bytes=plan.read_bytes,
        hashed_bytes=plan.hashed_bytes,
        mapped_bytes=plan.mapped_bytes,
        result_bytes=plan.result_bytes,
        host_bytes=plan.host_bytes,
        free_bytes=plan.free_bytes,
    )


def _conclude(talk: Talk, report: LoadReport) -> None:
    seconds = max(report.elapsed_s, 1e-3)
    as_dtype = f" as {report.dtype}" if report.dtype else ""
    talk.result(
        f"loaded {text.count(report.tensors, 'tensor')}, {text.size(report.result_bytes)} on {report.device}"
        f"{as_dtype}, in {text.duration(report.elapsed_s)} ({text.rate(report.total_bytes / seconds)})"
    )
    proven = f"{text.size(report.verified_bytes)} hashed"
    if report.read_bytes + report.mapped_bytes > report.verified_bytes:
        proven += ", the rest verified before and untouched since"
    talk.say(proven + (f"; mended: {', '.join(report.repaired)}" if report.repaired else ""))
    spent = [f"{name} {text.duration(each)}" for name, each in report.stages_s.items() if each >= 0.005]
    if spent:
        talk.say(f"{', '.join(spent)}, summed over {text.count(report.lanes, 'lane')}")
    host = f"memory: this process at most {text.size(report.host_peak_bytes)}"
    gained = report.host_peak_bytes - report.host_before_bytes
    device = f"; {report.device} {text.size(report.device_peak_bytes)}" if report.device_peak_bytes else ""
    talk.say(f"{host} ({text.size(max(0, gained))} more than before){device}")
    talk.emit("done", **_books(report))


def _books(report: LoadReport) -> dict[str, Any]:
    return {
        "component": report.component,
        "device": report.device,
        "dtype": report.dtype or None,
        "tensors": report.tensors,
        "total_bytes": report.total_bytes,
        "result_bytes": report.result_bytes,
        "read_bytes": report.read_bytes,
        "verified_bytes": report.verified_bytes,
        "mapped_bytes": report.mapped_bytes,
        "fetched_bytes": report.fetched_bytes,
        "elapsed_s": round(report.elapsed_s, 3),
        "stages_s": {name: round(each, 3) for name, each in report.stages_s.items()},
        "lanes": report.lanes,
        "host_peak_bytes": report.host_peak_bytes,
        "device_peak_bytes": report.device_peak_bytes,
        "repaired": report.repaired,
    }
