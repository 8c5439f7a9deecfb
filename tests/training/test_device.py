"""Where a fine-tune computes: a GPU is known by its index, also where the caller gave none."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hausa_asr.errors import NodeFault
from hausa_asr.model.device import chosen_device, has_code_for
from hausa_asr.recipe import Answer
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.training.run import start
from helpers.fine_tunes import RECIPE
from helpers.speech import ToneSplit


@pytest.fixture
def third_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current GPU, an A100, is the third, also on a machine without one: only the driver's answers are replaced."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))


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


WHEEL = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
"""What torch 2.11.0+cu130 is built for: machine code alone, so nothing newer than its newest family runs."""


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((7, 5), WHEEL, True),  # T4
        ((8, 0), WHEEL, True),  # A100
        ((8, 9), WHEEL, True),  # L4, by sm_86
        ((9, 0), WHEEL, True),  # H100
        ((12, 1), WHEEL, True),
        ((7, 0), WHEEL, False),  # V100
        ((6, 1), WHEEL, False),
        ((11, 0), WHEEL, False),
        ((13, 0), WHEEL, False),
        ((7, 0), ("sm_70", "sm_80"), True),
        ((8, 6), ("sm_80",), True),
        ((8, 0), ("sm_86",), False),
        ((13, 0), (*WHEEL, "compute_120"), True),  # the driver compiles it
        ((7, 0), (*WHEEL, "compute_120"), False),
        ((9, 0), ("sm_90a",), True),
        ((10, 3), ("sm_100a",), False),  # of that card alone
        ((10, 3), ("sm_100f",), True),  # of its family
        ((9, 4), ("gfx90a", "gfx942"), True),  # AMD's, of which nothing is known here
    ],
)
def test_a_gpu_runs_where_torch_has_code_for_it(
    capability: tuple[int, int], archs: tuple[str, ...], runs: bool
) -> None:
    assert has_code_for(capability, archs) is runs


@pytest.mark.parametrize(("capability", "runs"), [((7, 0), False), ((7, 5), True)])
def test_a_gpu_that_torch_has_no_code_for_is_refused_as_the_nodes_fault(
    capability: tuple[int, int], runs: bool, third_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its first kernel fails, "no kernel image is available", or its convolutions a minute later."""
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(WHEEL))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-16GB")
    if runs:
        assert chosen_device(torch.device("cuda")) == torch.device("cuda:2")
        return
    with pytest.raises(NodeFault) as refused:
        finetune(
            RECIPE, Data(ToneSplit(4, 0), ToneSplit(2, 1)), lambda progress: Answer.STOP, base="demo",
            folder=tmp_path / "trial", device=torch.device("cuda"),
        )  # fmt: skip
    for part in ("Tesla V100-SXM2-16GB", "7.0", f"torch {torch.__version__}", "sm_75", "cuda:2"):
        assert part in str(refused.value)
    assert refused.value.fix and type(pickle.loads(pickle.dumps(refused.value))) is NodeFault, "on its way through Ray"


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
