"""Write an exported model as ONNX too, and as ONNX with weights of 8 bits, and measure both beside PyTorch.

In: the folder of an export, and utterances to measure with. Out: `model.onnx` and `model.int8.onnx` in it, and a
section of its card. Called by `best_model`. Needs the extra `[onnx]`.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hausa_asr.decoding.path import greedy_texts
from hausa_asr.errors import UserError, first_line
from hausa_asr.export.folder import INT8, ONNX
from hausa_asr.export.speed import measured_clips
from hausa_asr.metrics import edit_counts
from hausa_asr.utterance import SAMPLE_RATE, Split

if TYPE_CHECKING:
    import torch

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_SAME = 0.01
"""Logits of ONNX and PyTorch within this are the same; those of a letter that is heard are tens of nats apart."""
_ONE_FILE = 1.5e9
"""Bytes of weights up to which all is in one file; one ONNX file holds at most 2 GB."""

Listen = Callable[[np.ndarray], np.ndarray]
"""(S,) samples as the processor gives them in, (T, V) logits out."""


class Measured(NamedTuple):
    """One form of a model: its WER on the clips, seconds for each second of audio, and megabytes; None if unknown."""

    name: str
    wer: float | None
    rtf: float
    mb: float


class OnnxExport(NamedTuple):
    """What was written.

    Attributes:
        difference: the largest difference of logits between ONNX and PyTorch.
        clips: how many utterances were measured.
        of_dev: they are of dev; else they are noise, and there is no WER.
        forms: PyTorch, ONNX and perhaps ONNX with 8 bits.
    """

    difference: float
    clips: int
    of_dev: bool
    forms: list[Measured]


def check_onnx() -> None:
    """Refuse early if what ONNX needs is not installed.

    Raises:
        UserError: it is not.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Writing ONNX needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            fix="Install it with `pip install 'hausa-asr-sweeps[onnx]'`.",
        )


def add_onnx(folder: Path, int8: bool, dev: Split | None) -> OnnxExport:
    """Write ONNX into the folder of an export.

    Args:
        folder: an export, complete.
        int8: write it with weights of 8 bits too.
        dev: up to 100 of its utterances are measured; without it noise.

    Raises:
        UserError: the model can't be written as ONNX, or ONNX computes something else.
    """
    from hausa_asr.model.wav2vec2 import load_model

    model, processor = load_model(str(folder))
    model.eval()
    clips = measured_clips(dev)
    values = [
        processor.feature_extractor(clip, sampling_rate=SAMPLE_RATE).input_values[0].astype(np.float32)
        for clip, _ in clips
    ]
    forms: dict[str, tuple[Callable[[], Listen], Path]] = {
        "PyTorch": (lambda: _torch(model), folder / "model.safetensors"),
        "ONNX": (lambda: _runtime(folder / ONNX), folder / ONNX),
    }
    if int8:
        forms["ONNX, 8 bits"] = (lambda: _runtime(folder / INT8), folder / INT8)
    heard: dict[str, list[np.ndarray]] = {}
    measured = []
    try:
        with _quiet():
            _write(model, folder / ONNX)
            if int8:
                _shrink(folder / ONNX, folder / INT8)
        for name, (ready, file) in forms.items():  # one after another, since each holds the weights
            heard[name], seconds = _listen(ready(), values)
            wer = _wer(heard[name], [text for _, text in clips]) if dev is not None else None
            audio_s = sum(len(samples) for samples, _ in clips) / SAMPLE_RATE
            measured.append(Measured(name, wer, seconds / audio_s, _mb(file)))
    except Exception as error:  # of three libraries, in many kinds
        raise UserError(f"The model can't be written as ONNX: {first_line(error)}.", where=folder) from error
    off = float(np.max([np.abs(a - b).max() for a, b in zip(heard["PyTorch"], heard["ONNX"], strict=True)]))
    if not off <= _SAME:  # nor NaN
        raise UserError(f"ONNX computes other logits than PyTorch, by up to {off:.2g}.", where=folder)
    found = OnnxExport(off, len(clips), dev is not None, measured)
    with (folder / "README.md").open("a", encoding="utf-8") as card:
        card.write(_section(found, processor.feature_extractor))
    return found


def _write(model: Any, file: Path) -> None:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_values, attention_mask=attention_mask).logits

    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples", min=SAMPLE_RATE // 4)
    shape = {0: batch, 1: samples}
    example = torch.randn(2, 2 * SAMPLE_RATE), torch.ones(2, 2 * SAMPLE_RATE, dtype=torch.long)
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    torch.onnx.export(
        Logits(),
        example,
        str(file),
        dynamo=True,
        external_data=size > _ONE_FILE,
        dynamic_shapes={"input_values": shape, "attention_mask": shape},
        input_names=["input_values", "attention_mask"],
        output_names=["logits"],
    )


def _shrink(file: Path, out: Path) -> None:
    """Write the weights of matrix products in 8 bits; their inputs are rounded as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(file), str(out), weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"],
        use_external_data_format=file.with_name(f"{file.name}.data").exists(),
    )  # fmt: skip


def _torch(model: Any) -> Listen:
    import torch

    def listen(values: np.ndarray) -> np.ndarray:
        mask = torch.ones(1, len(values), dtype=torch.long)
        with torch.inference_mode():
            return model(torch.from_numpy(values)[None], attention_mask=mask).logits[0].numpy()

    return listen


def _runtime(file: Path) -> Listen:
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as PyTorch has, for the speeds
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def listen(values: np.ndarray) -> np.ndarray:
        mask = np.ones((1, len(values)), dtype=np.int64)
        return session.run(["logits"], {"input_values": values[None], "attention_mask": mask})[0][0]

    return listen


def _listen(listen: Listen, values: Sequence[np.ndarray]) -> tuple[list[np.ndarray], float]:
    """Logits of each clip, and the seconds that they took."""
    listen(values[0])  # the first call readies things
    began = time.monotonic()
    return [listen(one) for one in values], time.monotonic() - began


def _wer(logits: list[np.ndarray], references: list[str]) -> float:
    errors, lengths = edit_counts(references, greedy_texts(logits))
    return float(errors[0] / max(1, lengths[0]))


def _mb(file: Path) -> float:
    beside = file.with_name(f"{file.name}.data")
    return sum(one.stat().st_size for one in (file, beside) if one.exists()) / 1e6


def _section(found: OnnxExport, extractor: Any) -> str:
    of = f"{found.clips} utterances of dev" if found.of_dev else f"{found.clips} clips of noise"
    scaled = ", each clip with mean 0 and variance 1" if extractor.do_normalize else ""
    mask = "1 for samples, 0 for padding" if extractor.return_attention_mask else "all 1: transcribe clips one by one"
    rows = [
        f"| {one.name} | {'–' if one.wer is None else f'{one.wer:.4f}'} | {one.rtf:.4f} | {one.mb:,.1f} |"
        for one in found.forms
    ]
    return "\n".join([
        "", "## ONNX", "",
        f"`{ONNX}` takes `input_values` (batch, samples: 16 kHz{scaled}) and `attention_mask` ({mask}), and gives "
        f"`logits` (batch, frames, letters). They differ from PyTorch's by at most {found.difference:.1g} on {of}, on "
        "the CPU that exported it:", "",
        f"| | WER on {of} | seconds for a second of audio | MB |", "|---|---|---|---|", *rows, "",
    ])  # fmt: skip


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what the exporters print and warn of on their way."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
