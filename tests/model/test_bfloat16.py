"""On a GPU with bfloat16 of its own it computes in that, elsewhere in float32, and nowhere in float16."""

from __future__ import annotations

import warnings

import pytest
import torch

from hausa_asr.model.forward import autocast, computes_in_bfloat16

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["ampere", "volta"])
def has_bfloat16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A GPU that has bfloat16 or not; only the driver's answers are replaced. Torch would emulate it on any GPU."""
    own = bool(request.param)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: own or including_emulation)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    return own


def test_it_is_bfloat16_where_that_is_real_and_never_float16(has_bfloat16: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = autocast(GPU)
    assert computes_in_bfloat16(GPU) is chosen._enabled is has_bfloat16
    assert chosen.fast_dtype == torch.bfloat16
    with chosen:
        assert torch.is_autocast_enabled("cuda") is has_bfloat16
        assert not has_bfloat16 or torch.get_autocast_dtype("cuda") == torch.bfloat16
    assert not torch.is_autocast_enabled("cuda")


def test_a_cpu_computes_in_float32_whatever_the_gpu_has(has_bfloat16: bool) -> None:
    assert not computes_in_bfloat16(CPU)
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
