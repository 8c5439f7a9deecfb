"""On a GPU with bfloat16 of its own it computes in that, elsewhere in float32, and nowhere in float16."""

from __future__ import annotations

import warnings

import pytest
import torch

from hausa_asr.model.forward import autocast, computes_in_bfloat16

OLD, NEW, CPU = torch.device("cuda", 0), torch.device("cuda", 1), torch.device("cpu")
CAPABILITIES = {OLD: (7, 5), NEW: (8, 0)}


@pytest.fixture(autouse=True, params=[OLD, NEW], ids=["current-turing", "current-ampere"])
def two_gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU without bfloat16, one with it; only the driver's answers are replaced. Torch would emulate it on both."""
    current = request.param
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current.index)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: CAPABILITIES[device or current])
    own = CAPABILITIES[current][0] >= 8
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: own or including_emulation)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)


@pytest.mark.parametrize(("device", "has_bfloat16"), [(OLD, False), (NEW, True)], ids=["turing", "ampere"])
def test_it_is_bfloat16_where_that_is_real_and_never_float16(device: torch.device, has_bfloat16: bool) -> None:
    """Whichever GPU is the current one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = autocast(device)
    assert computes_in_bfloat16(device) is chosen._enabled is has_bfloat16
    assert chosen.fast_dtype == torch.bfloat16
    with chosen:
        assert torch.is_autocast_enabled("cuda") is has_bfloat16
        assert not has_bfloat16 or torch.get_autocast_dtype("cuda") == torch.bfloat16
    assert not torch.is_autocast_enabled("cuda")


def test_a_cpu_computes_in_float32_whatever_the_gpu_has() -> None:
    assert not computes_in_bfloat16(CPU)
    with autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
