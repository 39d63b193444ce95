"""What a second version, or the same tensors in another container, costs to fetch."""

from __future__ import annotations

from pathlib import Path

import diachunk
from diachunk.testing.checkpoint import layout, revise, total_bytes, write_safetensors, write_torch_zip

_SCALE = 0.3


def versions(folder: Path, rounds: int, size_mib: int) -> str:
    """v2 over v1, and a .pth beside a .safetensors, of a Dia-shaped model. Counts bytes: rounds do not matter."""
    root = folder / "sharing"
    root.mkdir(exist_ok=True)
    first = layout("dia_tf", scale=_SCALE)
    second = revise(first)
    changed = total_bytes([spec for spec in second if spec.generation or not spec.source])
    write_safetensors(root / "v1.safetensors", first, seed="bench")
    write_safetensors(root / "v2.safetensors", second, seed="bench")
    write_torch_zip(root / "v1.pth", first, seed="bench")
    home = folder / "sharing-home"
    for name in ("v1.safetensors", "v2.safetensors", "v1.pth"):
        diachunk.publish([root / name], name=name, home=home)
    update = diachunk.diff("v1.safetensors", "v2.safetensors", home=home)
    container = diachunk.diff("v1.safetensors", "v1.pth", home=home)
    return (
        "### What is shared\n\n| from | to | size | fetched | |\n|---|---|---|---|---|\n"
        f"| v1.safetensors | v2: 10% of the bytes changed, a tensor inserted, all renamed | {update.total_bytes:,} | "
        f"{update.fetch_bytes:,} | **{update.fetch_bytes / changed:.3f}x** the changed bytes |\n"
        f"| v1.safetensors | the same tensors as .pth | {container.total_bytes:,} | {container.fetch_bytes:,} | "
        f"**{container.fetch_bytes / container.total_bytes:.2%}** |"
    )
