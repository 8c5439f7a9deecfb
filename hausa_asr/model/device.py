"""What is true of a device: whether an error says that it has no room.

In: an error of torch's. Out: what it says of the device. Called by training, the evaluation, the feature cache and the
export.
"""

from __future__ import annotations

import torch

from hausa_asr.errors import TooLittleMemory, first_line

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
