"""The device to compute on: choose it, refuse a GPU that torch has no code for, set torch up, know a lack of room.

In: the device that is wanted, or an error of torch's. Out: the device, ready, or what the error says of it. Called by
all that train a model or use one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import torch

from hausa_asr.errors import NodeFault, TooLittleMemory, first_line

BFLOAT16_FROM = 8
"""The major compute capability from which a GPU has bfloat16 of its own: Ampere's."""
_CODE = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")
"""A name in torch's list of what it was built for: machine code or PTX, and of which capability."""

_LACKS = (
    "CUDA error: out of memory",  # torch.AcceleratorError, when a context is made, say
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # a library's handle, which the first matrix product of a thread makes
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What errors say that lack memory and are no `torch.OutOfMemoryError`, which only torch's own allocator raises."""
_TAKEN = "busy or unavailable"
"""What one says of a card that another process has to itself."""


def ready_device(wanted: str | torch.device | None = None) -> torch.device:
    """Choose a device and set torch up for it; arguments and errors as of `chosen_device`."""
    device = chosen_device(wanted)
    set_up(device)
    return device


def chosen_device(wanted: str | torch.device | None) -> torch.device:
    """The device to compute on: the one that is wanted, else a GPU, else the CPU.

    A GPU without an index is the current one. It gets its index here: `torch.cuda.set_device` refuses one without.

    Raises:
        NodeFault: the torch that is installed has no code for the GPU.
    """
    device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type != "cuda":
        return device
    if device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    check_code(device)
    return device


def check_code(device: torch.device) -> None:
    """Refuse a GPU that the torch that is installed has no code for. Its kernels would fail one by one.

    Raises:
        NodeFault: it has none.
    """
    archs = torch.cuda.get_arch_list()  # empty where torch sees no GPU
    if not archs or has_code_for(capability := torch.cuda.get_device_capability(device), archs):
        return
    raise NodeFault(
        f"The GPU {torch.cuda.get_device_name(device)} has compute capability {'.'.join(map(str, capability))}, for "
        f"which torch {torch.__version__} has no code (it has {', '.join(archs)}).",
        where=device,
        fix="Use another GPU, or install builds of torch and torchaudio that have it: docs/troubleshooting.md.",
    )


def has_code_for(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """Whether a build of torch has code that a GPU runs, by NVIDIA's rules for binaries and PTX.

    Args:
        capability: the GPU's, such as (8, 6).
        archs: what torch was built for. `sm_80` is machine code, for 8.0 and newer of the same major; `compute_80` is
            PTX, for all that are newer; with an `a` it is for that capability alone, with an `f` for its family.
    """
    known = [match for match in map(_CODE.fullmatch, archs) if match]
    for kind, major, minor, only in (match.groups() for match in known):
        built = int(major), int(minor)
        if only == "a":
            runs = capability == built
        else:
            runs = capability >= built and (capability[0] == built[0] or (kind == "compute" and not only))
        if runs:
            return True
    return not known  # names of another maker's


def set_up(device: torch.device) -> None:
    """Set torch's options for the process."""
    if device.type == "cpu":
        # oneDNN caches a plan for each shape of a convolution, by default a thousand of them: gigabytes.
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    if device.type == "cuda":
        # cuDNN's attention makes a plan for every shape, about a second each on some GPUs.
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("high")


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device is a GPU with bfloat16 of its own (Ampere and newer); on others it is slower than float32."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= BFLOAT16_FROM


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU has too little memory."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(lack in str(error) for lack in _LACKS)


def has_no_room(error: BaseException) -> bool:
    """Whether an error says that a GPU has no room for this process: too little memory, or it is another's alone."""
    return is_out_of_memory(error) or (isinstance(error, RuntimeError) and _TAKEN in str(error))


def check_smaller_may_fit(error: RuntimeError, utterances: int) -> None:
    """Return where a batch lacked memory and a smaller one may fit; else raise what that comes to.

    Args:
        error: what the batch raised.
        utterances: of the batch.

    Raises:
        TooLittleMemory: one utterance alone is too much for torch's allocator.
        RuntimeError: the error itself, if it is of another kind. So is that of a library's handle with one utterance:
            it takes the same whatever the recipe is, so something else is on the card.
    """
    if not is_out_of_memory(error):
        raise error
    if utterances == 1:
        if isinstance(error, torch.OutOfMemoryError):
            raise TooLittleMemory(f"not even one utterance fits: {first_line(error)}") from error
        raise error
