"""Hausa speech recognition with wav2vec 2.0: prepare, fine-tune, score, export, transcribe.

What most programs need is here: `finetune` with its `FinetuneConfig`, `transcribe`, `wer`, `cer` and `normalise`. Each
is imported when it is first used, so `import hausa_asr` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hausa_asr.metrics import cer, wer
    from hausa_asr.model.transcribe import transcribe
    from hausa_asr.recipe import FinetuneConfig
    from hausa_asr.text import normalise
    from hausa_asr.training.finetune import finetune

__version__ = "0.1.0"
__all__ = ["FinetuneConfig", "cer", "finetune", "normalise", "transcribe", "wer"]

_PLACES = {
    "FinetuneConfig": "hausa_asr.recipe",
    "cer": "hausa_asr.metrics",
    "finetune": "hausa_asr.training.finetune",
    "normalise": "hausa_asr.text",
    "transcribe": "hausa_asr.model.transcribe",
    "wer": "hausa_asr.metrics",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
