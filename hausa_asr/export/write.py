"""Write the model of a checkpoint as a folder that anyone can load with `transformers`, with its model card.

In: a checkpoint's folder and a `Card`. Out: a folder that is complete or absent. Called by the end of a sweep, by
`hausa-asr best-model` and by `hausa-asr finetune`.
"""

from __future__ import annotations

import json
from pathlib import Path

from hausa_asr.export.folder import SETTINGS, written_aside
from hausa_asr.export.model_card import Card, render, shown_base


def export_checkpoint(checkpoint: Path, out: Path, card: Card, *, overwrite: bool = False) -> Path:
    """Write the model of a checkpoint as a folder of its own: weights, processor, settings and model card.

    Args:
        checkpoint: a checkpoint's folder, `step-000120`.
        out: the folder to write.
        card: what its README says.
        overwrite: replace `out` if it is an export.

    Returns:
        `out`, absolute.

    Raises:
        UserError: `out` is taken or can't be written, or the checkpoint is not complete.
    """
    with written_aside(out, overwrite) as partial:
        write_model(checkpoint, partial, card)
    return out.resolve()


def write_model(checkpoint: Path, folder: Path, card: Card) -> None:
    """Fill an empty folder with a checkpoint's model: weights, processor, settings and card."""
    from hausa_asr.quiet import quiet
    from hausa_asr.training import checkpoint as checkpoints

    model, processor = checkpoints.load(checkpoint)
    with quiet():
        model.save_pretrained(folder, max_shard_size="100GB")  # one file, whatever the size
    processor.save_pretrained(folder)
    # transformers before 5 want the feature extractor in a file of its own, and break where they find it in this one.
    processor.feature_extractor.save_pretrained(folder)
    file = folder / "processor_config.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about.pop("feature_extractor", None)
    file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    about = {"base": shown_base(card), **card.recipe}
    (folder / SETTINGS).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(render(card), encoding="utf-8")
