"""Transcribe recordings with an exported model: files or samples in, texts out.

Offered to users as `hausa_asr.transcribe`. Here a recording that can't be read is an error; where one bad file must not
end the others, use `Recognizer.files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from hausa_asr.audio.load import AudioRefused
from hausa_asr.audio.long_recording import open_recording
from hausa_asr.ctc import frames
from hausa_asr.decoding.path import text_of
from hausa_asr.model.recognizer import MAX_RECORDING_S, Lm, Recognizer, is_enough
from hausa_asr.model.windows import Samples
from hausa_asr.utterance import SAMPLE_RATE

if TYPE_CHECKING:
    import torch

Recording = str | Path | np.ndarray


@overload
def transcribe(  # type: ignore[overload-overlap]  # a str is a sequence of str, and here always a path
    recordings: Recording, model: str | Path = ..., *, device: str | torch.device | None = ..., lm: Lm = ...
) -> str: ...


@overload
def transcribe(
    recordings: Sequence[Recording], model: str | Path = ..., *, device: str | torch.device | None = ..., lm: Lm = ...
) -> list[str]: ...


def transcribe(
    recordings: Recording | Sequence[Recording],
    model: str | Path = "best-model",
    *,
    device: str | torch.device | None = None,
    lm: Lm = None,
) -> str | list[str]:
    """Transcribe one recording, or several, with a fine-tuned model.

    The model is loaded at every call, so give several recordings at once.

    Args:
        recordings: a file of any audio format (wav, flac, mp3, ogg, opus, m4a, webm, ...), or a NumPy array of (S,)
            float samples, mono at 16 kHz in [-1, 1]; or a list of them. Each of up to a day.
        model: the folder of an exported model (`hausa-asr best-model` and `hausa-asr finetune` write one), or its id
            on the Hugging Face hub.
        device: where to compute; by default the GPU if there is one, else the CPU.
        lm: a language model that `hausa-asr lm train` wrote, or another ARPA file; by default the one in the
            model's folder, if any; False for none.

    Returns:
        The text of one recording, or a list of texts in the order of the recordings. Words are in lower case, separated
        by one space, without punctuation; a recording in which nothing is recognised gives "".

    Raises:
        AudioRefused: a recording can't be read, is too short or too long, or has no sound in it.
        UserError: there is no such model, or it is not one of this project; or the same of the language model.
        ValueError: an array is not (S,) floats.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from hausa_asr.model.wav2vec2 import new_model
        >>> from hausa_asr.recipe import FinetuneConfig
        >>> folder = tempfile.mkdtemp()  # in place of an exported model, one that has learnt nothing yet
        >>> for part in new_model("demo", FinetuneConfig()):
        ...     _ = part.save_pretrained(folder)
        >>> noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
        >>> texts = transcribe([noise, noise[:8_000]], model=folder)
        >>> len(texts)
        2
    """
    hear = Recognizer(model, device=device, lm=lm)
    one = isinstance(recordings, str | Path | np.ndarray)
    several: Sequence[Recording] = [recordings] if one else recordings  # type: ignore[list-item,assignment]
    texts: list[str] = []
    together: list[Samples] = []
    for number, recording in enumerate(several, start=1):
        together.append(_samples(recording))
        if number == len(several) or is_enough(together):
            texts += [text_of(path) for path, _ in hear(together)]
            together = []
    return texts[0] if one else texts


def _samples(recording: Recording) -> Samples:
    """The (S,) float32 samples of a recording, which may lie on disk.

    Raises:
        AudioRefused: see `transcribe`; its detail names the file.
    """
    if not isinstance(recording, np.ndarray):
        try:
            return open_recording(recording, MAX_RECORDING_S)
        except AudioRefused as refused:
            detail = f"{recording}: {refused.detail}" if refused.detail else str(recording)
            raise AudioRefused(refused.reason, detail) from refused
    if recording.ndim != 1 or not np.issubdtype(recording.dtype, np.floating):
        raise ValueError(f"samples are (S,) floats in [-1, 1], not {recording.shape} {recording.dtype}")
    if len(recording) > MAX_RECORDING_S * SAMPLE_RATE:
        raise AudioRefused("too long", f"more than {MAX_RECORDING_S:g} s")
    if frames(len(recording)) == 0:
        raise AudioRefused("too short", f"{len(recording)} samples at 16 kHz")
    if not np.isfinite(recording).all():
        raise AudioRefused("nan", "samples that are not numbers, or infinite")
    return recording.astype(np.float32, copy=False)
