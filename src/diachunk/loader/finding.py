"""How "cuda:1" becomes a device, if it is here."""

from __future__ import annotations

import torch

from diachunk.errors import LoadError, UsageError
from diachunk.loader.cuda import CudaQueues
from diachunk.loader.device import Device, Host, Other
from diachunk.loader.queued import Queued


def find_device(given: str | torch.device) -> Device:
    """The device that was asked for; "auto" is the best that is here.

    Raises:
        UsageError: no device is called so.
        LoadError: it is not here.
    """
    if given == "auto":
        given = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"{given!r:.60} is no device", hint="cpu, cuda, cuda:1, mps or auto") from error
    if device.type == "cpu":
        return Host()
    if device.type == "cuda":
        return _cuda(device)
    if device.type == "meta":
        raise UsageError("nothing can be loaded onto the meta device", hint="cpu, cuda, cuda:1, mps or auto")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise LoadError(f"no {device} here", hint="`auto` takes what there is") from error
    return Other(device)


def _cuda(device: torch.device) -> Device:
    if not torch.cuda.is_available():
        what = "this torch is built without CUDA" if torch.version.cuda is None else "no usable driver or GPU"
        raise LoadError(f"no {device} here: {what}", hint="`auto` takes what there is")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise LoadError(f"no {device} here: there are {count}, from cuda:0 on")
    try:
        return Queued(CudaQueues(device))
    except RuntimeError as error:  # a process forked from one that uses CUDA, a GPU that is another's alone
        what = (str(error).splitlines() or [""])[0]
        raise LoadError(f"{device} cannot be used: {what:.160}") from error
