"""Diagnose exported models on a prepared dataset: folders in, counts, suspects and pages out. Called by `hausa-asr`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from hausa_asr.dataset.prepared import load_prepared, split_of
from hausa_asr.diagnosis.cross_fit import Watch, cross_fitted
from hausa_asr.diagnosis.diagnose import Diagnosis, diagnose
from hausa_asr.diagnosis.heard import heard, joined_corpora
from hausa_asr.diagnosis.page import as_page, as_text
from hausa_asr.diagnosis.suspects import Suspect, suspects
from hausa_asr.diagnosis.suspects_page import as_lines, as_table
from hausa_asr.diagnosis.suspects_page import as_page as as_suspects_page
from hausa_asr.errors import UserError
from hausa_asr.files import write_whole
from hausa_asr.recipe import FinetuneConfig
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
    from hausa_asr.model.device import ready_device
    from hausa_asr.model.wav2vec2 import load_model

    spoken, joined = split_of(prepared, split), joined_corpora(load_prepared(prepared).report)
    device = ready_device()
    found = []
    for folder in filter(None, (model, baseline)):
        network, processor = load_model(folder)
        found.append(diagnose(heard(network.to(device), processor, spoken, joined)))  # type: ignore[arg-type]
    return Diagnosed(found[0], found[1] if baseline else None, spoken)


class Suspected(NamedTuple):
    """The suspects of a split, the nats from which an utterance is one, and the split."""

    found: list[Suspect]
    limit: float
    split: Split

    def write(self, table: Path, page: Path | None, title: str) -> None:
        """Write the table, and the page if there is to be one.

        Raises:
            UserError: one of them can't be written.
        """
        about = as_lines(self.found, len(self.split), self.limit)[0]
        for file, option, content in (
            (table, "--out", lambda: as_table(self.found)),
            (page, "--page", lambda: as_suspects_page(self.found, self.split, title, about)),
        ):
            if file is not None:
                try:
                    file.parent.mkdir(parents=True, exist_ok=True)
                    write_whole(file, content())
                except (OSError, ValueError) as error:
                    raise UserError(
                        f"It can't be written: {error}.", where=file, fix=f"Give another {option}."
                    ) from error


def refuse_unwritable(*files: Path | None) -> None:
    """Refuse files that can't be written, before an hour is spent on what they would hold.

    Raises:
        UserError: one of them is a folder, or nothing can be made in its folder.
    """
    for file in filter(None, files):
        there = next(folder for folder in file.absolute().parents if os.path.exists(folder))
        if os.path.isdir(file) or not os.path.isdir(there) or not os.access(there, os.W_OK):
            raise UserError("No file can be written there.", where=file, fix="Give another place.")


def suspected(
    model: str,
    prepared: Path,
    split: str,
    watch: Callable[[int, int], None],
    *,
    folds: int = 0,
    base: str | None = None,
    watch_fine_tunes: Watch | None = None,
) -> Suspected:
    """Find the suspects of a split with an exported model, or by fine-tunes like it.

    Args:
        model: its folder, or its id on the hub.
        prepared: a prepared dataset's folder.
        split: which of its splits.
        watch: called with how many utterances were heard, of how many.
        folds: in how many parts the split is cut, each judged by a fine-tune of the others by the model's recipe; 0 to
            judge all with the model itself.
        base: what these fine-tunes start from; by default what the model did.
        watch_fine_tunes: called as they go on.

    Raises:
        UserError: the model, the dataset or the split can't be had.
    """
    from hausa_asr.model.device import ready_device
    from hausa_asr.model.wav2vec2 import load_model

    spoken = split_of(prepared, split)
    if folds:
        if split != "train":
            raise UserError(
                f"Cross-fitting is for train, which models learn from, and not for {split}.",
                fix="Leave out --cross-fit: the model has not seen it.",
            )
        watch_folds = watch_fine_tunes or (lambda fold, step, of: None)
        recipe, start = _recipe_of(model, base)
        found, limit = cross_fitted(recipe, start, spoken, split_of(prepared, "dev"), folds, watch_folds)
        return Suspected(found, limit, spoken)
    network, processor = load_model(model)
    network.to(ready_device())  # type: ignore[arg-type]
    found, limit = suspects(network, processor, spoken, lambda done: watch(done, len(spoken)))
    return Suspected(found, limit, spoken)


def _recipe_of(model: str, base: str | None) -> tuple[FinetuneConfig, str]:
    """The recipe of an exported model, and the base checkpoint that it started from.

    Raises:
        UserError: its folder does not say.
    """
    file = Path(model) / "settings.json"
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        known = {field.name for field in fields(FinetuneConfig)} - {"base"}
        recipe = FinetuneConfig(**{name: value for name, value in about.items() if name in known})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"The recipe of the model can't be read: {error}.", where=file,
            fix="Give the folder of an exported model; without --cross-fit any will do.",
        ) from error  # fmt: skip
    start = base or about.get("base")
    if not start:
        raise UserError("The model's folder does not say what it started from.", where=file, fix="Add --base.")
    return recipe, str(start)
