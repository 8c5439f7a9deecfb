"""Transcribe recordings with an exported model: files or samples in, texts out.

`transcribe` is offered to users as `hausa_asr.transcribe`. `transcribe_files` is for `hausa-asr transcribe`, where one
bad file must not end the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from hausa_asr.audio.load import AudioRefused, load
from hausa_asr.ctc import frames
from hausa_asr.decoding.beam import BeamDecoder
from hausa_asr.decoding.path import FindPaths, Word, greedy_paths, text_of, words_of
from hausa_asr.decoding.weights import LM_FILE
from hausa_asr.errors import UserError
from hausa_asr.utterance import SAMPLE_RATE

if TYPE_CHECKING:
    import torch

Recording = str | Path | np.ndarray
Lm = str | Path | Literal[False] | None

MAX_RECORDING_S = 2 * 3600.0
"""All of a recording is decoded at once: in stereo at 48 kHz this much takes about 7 GB."""
_CPU_BATCH_S = 30.0
"""Seconds of audio at once on a CPU, whose caches larger batches do not fit: they take a third longer."""
AT_ONCE, AT_ONCE_S = 16, 1800.0
"""Recordings are read and transcribed in groups of up to 16, or of half an hour in all."""


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
            float samples, mono at 16 kHz in [-1, 1]; or a list of them. Each of up to two hours.
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
    together: list[np.ndarray] = []
    for number, recording in enumerate(several, start=1):
        together.append(_samples(recording))
        if number == len(several) or _is_enough(together):
            texts += [text_of(path) for path, _ in hear(together)]
            together = []
    return texts[0] if one else texts


@dataclass(frozen=True)
class Transcript:
    """What became of one file: its text, or why it has none.

    Attributes:
        file: the recording.
        text: what is said in it; None if the file was refused.
        duration_s: its length in seconds, None if the file was refused.
        error: why it was refused; None if it was not.
    """

    file: str
    text: str | None = None
    duration_s: float | None = None
    error: str | None = None
    words: list[Word] | None = None


def transcribe_files(
    files: Sequence[str | Path],
    model: str | Path = "best-model",
    *,
    device: str | torch.device | None = None,
    lm: Lm = None,
    words: bool = False,
) -> Iterator[Transcript]:
    """Transcribe files, `AT_ONCE` at a time; one that can't be read gives an error in place of a text.

    Args:
        files: of any audio format, each of up to two hours.
        model, device, lm: as in `transcribe`.
        words: give the words too, each with its times.

    Returns:
        A transcript for each file, in their order.

    Raises:
        UserError: there is no such model, or it is not one of this project; or the same of the language model.
    """
    return Recognizer(model, device=device, lm=lm).files(files, words=words)


def _transcripts(files: Sequence[str | Path], hear: Recognizer, with_words: bool, max_s: float) -> Iterator[Transcript]:
    waiting: list[tuple[str, np.ndarray | str]] = []  # a file with its samples, or with why it has none
    for number, file in enumerate(files, start=1):
        try:
            waiting.append((str(file), load(file, max_s=max_s).samples))
        except AudioRefused as refused:
            waiting.append((str(file), str(refused)))
        samples = [one for _, one in waiting if isinstance(one, np.ndarray)]
        if number < len(files) and not _is_enough(samples) and len(waiting) < AT_ONCE:
            continue
        heard = iter(hear(samples))
        for name, one in waiting:
            if isinstance(one, str):
                yield Transcript(name, error=one)
            else:
                path, logits = next(heard)
                words = words_of(path, logits) if with_words else None
                yield Transcript(name, text_of(path), round(len(one) / SAMPLE_RATE, 3), words=words)
        waiting, samples, one = [], [], ""  # before more is read


def _is_enough(samples: Sequence[np.ndarray]) -> bool:
    """Whether so much is in memory that it is to be transcribed."""
    return len(samples) >= AT_ONCE or sum(map(len, samples)) >= AT_ONCE_S * SAMPLE_RATE


class Recognizer:
    """A model that is loaded once, and how its logits are decoded.

    Args:
        model, device, lm: as in `transcribe`.

    Raises:
        UserError: as `transcribe`.
    """

    def __init__(self, model: str | Path, *, device: str | torch.device | None = None, lm: Lm = None) -> None:
        _check_model(model)
        self._paths = _find_paths(lm, model)
        self._network, self._processor = _load_model(model, device)

    def files(
        self, files: Sequence[str | Path], *, words: bool = False, max_s: float = MAX_RECORDING_S
    ) -> Iterator[Transcript]:
        """Transcribe files, as `transcribe_files` does.

        Args:
            files, words: as there.
            max_s: longer recordings are refused.
        """
        return _transcripts(files, self, words, max_s)

    def __call__(self, samples: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The path and the logits of each recording, given as (S,) samples."""
        from hausa_asr.model.evaluate import EVAL_BATCH_S, recording_logits

        device = next(self._network.parameters()).device
        logits = recording_logits(
            self._network, self._processor, samples, batch_s=EVAL_BATCH_S if device.type == "cuda" else _CPU_BATCH_S
        )
        return list(zip(self._paths(logits), logits, strict=True))


def _find_paths(lm: Lm, model: str | Path) -> FindPaths:
    """Decode with the given language model or the model's own; greedily without one."""
    if lm is None:
        own = Path(model) / LM_FILE
        lm = own if os.path.isfile(own) else False
    return greedy_paths if lm is False else BeamDecoder(Path(lm)).paths


def _load_model(model: str | Path, device: str | torch.device | None) -> tuple[Any, Any]:
    """An exported model, ready on its device, and its processor."""
    _check_model(model)
    import torch  # these take seconds, so a missing model is refused first

    from hausa_asr.model.wav2vec2 import load_model

    network, processor = load_model(model)
    network.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))  # type: ignore[arg-type]
    return network, processor


def _check_model(model: str | Path) -> None:
    """Refuse a name that is neither a folder nor looks like an id on the Hugging Face hub, without importing torch.

    Raises:
        UserError: there is no such folder.
    """
    name = str(model)
    if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UserError(
            "There is no such model folder.",
            where=name,
            fix="Export one with `hausa-asr best-model`, or give another.",
        )


def _samples(recording: Recording) -> np.ndarray:
    """The (S,) float32 samples of a recording.

    Raises:
        AudioRefused: see `transcribe`; its detail names the file.
    """
    if not isinstance(recording, np.ndarray):
        try:
            return load(recording, max_s=MAX_RECORDING_S).samples
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
