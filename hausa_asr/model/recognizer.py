"""A model that is loaded once and transcribes files: they are decoded ahead, and heard together.

In: files or samples. Out: `Transcript`s, or paths and logits. A file that can't be read costs the others nothing.
Called by `transcribe`, by `hausa-asr transcribe` and by the page.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hausa_asr.audio.load import AudioRefused
from hausa_asr.audio.long_recording import open_recording
from hausa_asr.decoding.beam import BeamDecoder
from hausa_asr.decoding.beam_pool import BeamPool
from hausa_asr.decoding.confidence import CONFIDENCE_FILE, GREEDY, WITH_LM, Calibration, stored_calibration
from hausa_asr.decoding.path import Word, greedy_paths, text_of, words_of
from hausa_asr.decoding.weights import LM_FILE, weights_file
from hausa_asr.errors import UserError
from hausa_asr.model.windows import Samples
from hausa_asr.utterance import SAMPLE_RATE

if TYPE_CHECKING:
    import torch

Lm = str | Path | Literal[False] | None

MAX_RECORDING_S = 24 * 3600.0
"""Longer recordings are refused: the logits of this much are 700 MB."""
_CPU_BATCH_S = 30.0
"""Seconds of audio at once on a CPU, whose caches larger batches do not fit: they take a third longer."""
AT_ONCE, AT_ONCE_S = 16, 1800.0
"""Recordings are read and transcribed in groups of up to 16, or of half an hour in all."""


@dataclass(frozen=True)
class Transcript:
    """What became of one file: its text, or why it has none.

    Attributes:
        file: the recording.
        text: what is said in it; None if the file was refused.
        duration_s: its length in seconds, None if the file was refused.
        error: why it was refused; None if it was not.
        words: with their times, if they were asked for.
    """

    file: str
    text: str | None = None
    duration_s: float | None = None
    error: str | None = None
    words: list[Word] | None = None


class Recognizer:
    """A model, and how its logits are decoded.

    Args:
        model: the folder of an exported model, or its id on the Hugging Face hub.
        device: where to compute; by default the GPU if there is one, else the CPU.
        lm: a language model; by default the model's own, if any; False for none.
        jobs: how many files are decoded ahead at a time, and how many processes search with a language model.

    Attributes:
        calibration: what makes chances of the model's confidences; None where they are as the model has them.

    Raises:
        UserError: there is no such model, or it is not one of this project; or the same of the language model.
    """

    def __init__(
        self, model: str | Path, *, device: str | torch.device | None = None, lm: Lm = None, jobs: int = 1
    ) -> None:
        _check_model(model)
        of_hub = not os.path.isdir(model)
        if of_hub:  # before anything else is looked for there
            self._network, self._processor = _load_model(model, device)
        own = _own_file(model, LM_FILE)
        if own is not None:
            _own_file(model, weights_file(Path(LM_FILE)).name)  # beside it, where the decoder looks
        if lm is None:
            lm = own or False
        self._jobs = jobs
        self._pool: BeamPool | None = None
        calibration = _own_file(model, CONFIDENCE_FILE)
        how: str | None = GREEDY
        if lm is False:
            self._paths = greedy_paths
        else:
            decoder = BeamDecoder(Path(lm))
            self._pool = BeamPool(decoder, Path(lm), jobs) if jobs > 1 else None
            self._paths = self._pool.paths if self._pool is not None else decoder.paths
            how = WITH_LM if Path(lm) == own else None  # of another language model nothing is known
        self.calibration: Calibration | None = None
        if calibration is not None and how is not None:
            self.calibration = stored_calibration(calibration.parent, how)
        if not of_hub:
            self._network, self._processor = _load_model(model, device)

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes that search, if there are any."""
        if self._pool is not None:
            self._pool.close()

    def files(
        self, files: Sequence[str | Path], *, words: bool = False, max_s: float = MAX_RECORDING_S
    ) -> Iterator[Transcript]:
        """Transcribe files, `AT_ONCE` at a time; one that can't be read gives an error in place of a text.

        Args:
            files: of any audio format.
            words: give the words too, each with its times.
            max_s: longer recordings are refused.

        Returns:
            A transcript for each file, in their order.
        """
        waiting: list[tuple[str, Samples | str]] = []  # a file with its samples, or with why it has none
        for number, (file, opened) in enumerate(self._opened(files, max_s), start=1):
            waiting.append((file, opened))
            samples = [one for _, one in waiting if not isinstance(one, str)]
            if number < len(files) and not is_enough(samples) and len(waiting) < AT_ONCE:
                continue
            heard = iter(self(samples))
            for name, one in waiting:
                if isinstance(one, str):
                    yield Transcript(name, error=one)
                else:
                    yield self._read(name, one, *next(heard), words)
            waiting, samples, one, opened = [], [], "", ""  # before more is read

    def _opened(self, files: Sequence[str | Path], max_s: float) -> Iterator[tuple[str, Samples | str]]:
        """The files, decoded: some of the next while the model hears those before."""

        def opened(file: str | Path) -> Samples | str:
            try:
                return open_recording(file, max_s)
            except AudioRefused as refused:
                return str(refused)

        ahead: deque[tuple[str, Future[Samples | str]]] = deque()
        with ThreadPoolExecutor(self._jobs) as pool:
            try:
                for file in files:
                    ahead.append((str(file), pool.submit(opened, file)))
                    if len(ahead) > self._jobs:
                        name, one = ahead.popleft()
                        yield name, one.result()
                while ahead:
                    name, one = ahead.popleft()
                    yield name, one.result()
            finally:
                for _, one in ahead:
                    one.cancel()

    def _read(self, name: str, samples: Samples, path: np.ndarray, logits: np.ndarray, with_words: bool) -> Transcript:
        words = words_of(path, logits, *((self.calibration,) if self.calibration else ())) if with_words else None
        return Transcript(name, text_of(path), round(len(samples) / SAMPLE_RATE, 3), words=words)

    def __call__(self, samples: Sequence[Samples]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The path and the logits of each recording, given as (S,) samples."""
        from hausa_asr.model.evaluate import EVAL_BATCH_S, recording_logits

        device = next(self._network.parameters()).device
        logits = recording_logits(
            self._network, self._processor, samples, batch_s=EVAL_BATCH_S if device.type == "cuda" else _CPU_BATCH_S
        )
        return list(zip(self._paths(logits), logits, strict=True))


def is_enough(samples: Sequence[Samples]) -> bool:
    """Whether so much is in memory that it is to be transcribed."""
    return len(samples) >= AT_ONCE or sum(map(len, samples)) >= AT_ONCE_S * SAMPLE_RATE


def _own_file(model: str | Path, name: str) -> Path | None:
    """A file of a model's folder, or of its repository on the hub, which is fetched; None if it has none."""
    if os.path.isdir(model):
        return Path(model) / name if os.path.isfile(Path(model) / name) else None
    from transformers.utils import cached_file

    found = cached_file(
        str(model), name, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
    )  # fmt: skip
    return Path(found) if found is not None else None


def _load_model(model: str | Path, device: str | torch.device | None) -> tuple[Any, Any]:
    """An exported model, ready on its device, and its processor."""
    _check_model(model)
    from hausa_asr.model.device import ready_device  # these take seconds, so a missing model is refused first
    from hausa_asr.model.wav2vec2 import load_model

    network, processor = load_model(model)
    network.to(ready_device(device))  # type: ignore[arg-type]
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
