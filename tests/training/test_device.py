"""Where a fine-tune computes: a GPU is known by its index, also where the caller gave none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hausa_asr.recipe import Answer
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.run import chosen_device, start
from helpers.fine_tunes import RECIPE
from helpers.speech import ToneSplit


@pytest.fixture
def third_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current GPU is the third, also on a machine without one: only the driver's answer is replaced."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)


@pytest.mark.parametrize(
    ("wanted", "chosen"), [("cuda", "cuda:2"), ("cuda:0", "cuda:0"), ("cuda:5", "cuda:5"), ("cpu", "cpu")]
)
def test_a_gpu_without_an_index_is_the_current_one(wanted: str, chosen: str, third_gpu: None) -> None:
    assert chosen_device(torch.device(wanted)) == torch.device(chosen)


@pytest.mark.parametrize(("there", "chosen"), [(True, "cuda:2"), (False, "cpu")])
def test_by_default_it_is_the_gpu_if_there_is_one(
    there: bool, chosen: str, third_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert chosen_device(None) == torch.device(chosen)


def test_finetune_takes_a_gpu_without_an_index(
    third_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        """The driver was asked for a GPU."""

    def driver(index: int) -> None:
        raise Reached(index)

    # All of `torch.cuda.set_device` but its call of the driver is torch's own, with its check of the device.
    monkeypatch.setattr(torch._C, "_cuda_setDevice", driver, raising=False)
    with pytest.raises(Reached) as reached:
        finetune(
            RECIPE, Data(ToneSplit(4, 0), ToneSplit(2, 1)), lambda progress: Answer.STOP, base="demo",
            folder=tmp_path / "trial", device=torch.device("cuda"),
        )  # fmt: skip
    assert reached.value.args == (2,)


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
)
def test_auto_compiles_nowhere(
    device: str, layer_norm_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer, **given: compiled.append(layer))
    assert RECIPE.compile == "auto"
    for wanted, every_layer in (("auto", False), ("on", True)):
        config = replace(RECIPE, compile=wanted)
        data = Data(ToneSplit(4, 0), ToneSplit(2, 1))
        run = start(config, data, str(layer_norm_base), tmp_path, torch.device(device), None, None)
        run.loader.close()
        assert compiled == (list(run.model.wav2vec2.encoder.layers) if every_layer else [])
