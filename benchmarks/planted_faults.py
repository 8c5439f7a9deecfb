"""Whether `hausa-asr diagnose` names faults that models were trained to have, and none in a clean one.

    python benchmarks/planted_faults.py [--set finetune.lr_peak=2e-3] [--json FILE]

Method. Four models are fine-tuned on the demo's train split, which differs in its transcripts: as they are; without
most words of one or two letters; with hooks folded in half of the utterances; with half of the spaces dropped. Each is
then diagnosed on the clean dev split. One seed each.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import bench
import numpy as np
import torch

from hausa_asr.dataset.from_settings import prepared_dataset
from hausa_asr.diagnosis.diagnose import diagnose
from hausa_asr.diagnosis.heard import heard
from hausa_asr.diagnosis.page import sentences
from hausa_asr.recipe import CACHE, Answer
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.text import encode, fold
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.utterance import Example, Split


def without_short(text: str, chance: random.Random) -> str:
    """A transcript without four fifths of its words of one or two letters."""
    kept = [word for word in text.split() if len(word) > 2 or chance.random() > 0.8]
    return " ".join(kept) or text


def without_hooks(text: str, chance: random.Random) -> str:
    """A transcript with hooks folded, or as it is."""
    return fold(text) if chance.random() < 0.5 else text


def without_spaces(text: str, chance: random.Random) -> str:
    """A transcript without half of its spaces."""
    return "".join("" if letter == " " and chance.random() < 0.5 else letter for letter in text)


FAULTS: dict[str, tuple[Callable[[str, random.Random], str], str]] = {
    "none": (lambda text, _: text, ""),
    "short words removed": (without_short, "Short words are dropped"),
    "hooks folded in half": (without_hooks, "Hooks are lost"),
    "half of the spaces dropped": (without_spaces, "Words run together"),
}
"""What is done to train's transcripts, and how the sentence begins that is to name it."""


class Changed:
    """A split with other transcripts."""

    def __init__(self, split: Split, change: Callable[[str, random.Random], str]) -> None:
        self._split, self.n_samples = split, split.n_samples
        self._texts = [change(split[index].text, random.Random(index)) for index in range(len(split))]

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        text = self._texts[index]
        return self._split[index]._replace(text=text, labels=np.array(encode(text), dtype=np.int64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=bench.ROOT / "sweeps/configs/demo.yaml", help="settings (demo)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the fine-tune")
    parser.add_argument("--json", type=Path, help="write the findings here")
    given = parser.parse_args()
    config = make_absolute(load(given.config, given.set), in_job=False)
    prepared = prepared_dataset(config.data, Path(config.storage) / CACHE)
    train, dev, recipe = prepared.splits["train"], prepared.splits["dev"], config.recipe()
    torch.manual_seed(0)
    figures, rows = {}, []
    for name, (change, named) in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            data = Data(Changed(train, change), dev)
            finetune(recipe, data, lambda _: Answer.CONTINUE, base=recipe.base, folder=Path(folder))
            best = checkpoint.best(Path(folder))
            assert best is not None
            found = diagnose(heard(*checkpoint.load(best.folder), dev))
        others = [one for one in found.findings if not named or not one.startswith(named)]
        hit = bool(named) and len(others) < len(found.findings)
        rows.append([name, ("yes" if hit else "no") if named else "-", str(len(others))])
        figures[name] = {"named": hit, "others": len(others), "findings": sentences(found)}
        print(f"{name}\n  " + "\n  ".join(sentences(found)), flush=True)
    print("\n" + bench.table(["planted", "named", "other findings"], rows))
    bench.write(given.json, figures)


if __name__ == "__main__":
    main()
