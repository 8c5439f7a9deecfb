"""Events as a sweep writes them."""

from __future__ import annotations

from typing import Any


def report(step: int, wer: float = 1.0, loss: float = 2.0) -> dict[str, Any]:
    return {
        "step": step,
        "updates": 100,
        "seen_s": step * 10.0,
        "metrics": {"wer": wer, "cer": wer / 2, "loss": loss, "audio_s_per_s": 50.0},
        "best": {"step": step, "wer": wer, "cer": wer / 2, "loss": loss},
        "last": step == 100,
        "diverged": False,
    }
