"""Diagnose exported models on a prepared dataset: folders in, counts and a page out. Called by `hausa-asr diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from hausa_asr.dataset.prepared import split_of
from hausa_asr.diagnosis.diagnose import Diagnosis, diagnose
from hausa_asr.diagnosis.heard import heard
from hausa_asr.diagnosis.page import as_page, as_text
from hausa_asr.errors import UserError
from hausa_asr.files import write_whole
from hausa_asr.utterance import Split


class Diagnosed(NamedTuple):
    """A model's diagnosis, that of its baseline if there is one, and the split that both heard."""

    model: Diagnosis
    baseline: Diagnosis | None
    split: Split

    def text(self) -> str:
        """For a terminal."""
        return as_text(self.model, self.baseline)

    def write(self, file: Path, title: str) -> None:
        """Write the page.

        Raises:
            UserError: it can't be written.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, as_page(self.model, self.split, title, self.baseline))
        except (OSError, ValueError) as error:
            raise UserError(f"The page can't be written: {error}.", where=file, fix="Give another --out.") from error


def diagnosed(model: str, prepared: Path, split: str, baseline: str | None = None) -> Diagnosed:
    """Transcribe a split with one or two exported models, and diagnose them.

    Args:
        model, baseline: folders of exported models, or ids on the hub.
        prepared: a prepared dataset's folder.
        split: which of its splits.

    Raises:
        UserError: a model, the dataset or the split can't be had.
    """
    import torch

    from hausa_asr.model.wav2vec2 import load_model

    spoken = split_of(prepared, split)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = []
    for folder in filter(None, (model, baseline)):
        network, processor = load_model(folder)
        found.append(diagnose(heard(network.to(device), processor, spoken)))  # type: ignore[arg-type]
    return Diagnosed(found[0], found[1] if baseline else None, spoken)
