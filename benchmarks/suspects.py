"""How many wrong transcripts `hausa-asr suspects` finds in the data that the model itself was trained on.

    python benchmarks/suspects.py [--set finetune.lr_peak=2e-3] [--share 0.05] [--cross-fit K] [--json FILE]

Method. In 5 % of the train transcripts of the demo a fault is planted: the transcript of another utterance, a word
replaced, left out or put in, the second half left out. A fine-tune learns from all of them, as in life; then the best
model looks through train. With `--cross-fit` there are K fine-tunes, each of which judges a K-th that it has not seen.
Recall is the share of the planted ones that are suspects, by kind too; precision the share of suspects that were
planted. One seed.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from pathlib import Path

import bench
import numpy as np

from hausa_asr.dataset.from_settings import prepared_dataset
from hausa_asr.diagnosis.cross_fit import cross_fitted
from hausa_asr.diagnosis.suspects import Suspect, suspects
from hausa_asr.recipe import CACHE, Answer
from hausa_asr.settings.load import load, make_absolute
from hausa_asr.text import encode
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data, finetune
from hausa_asr.utterance import Example, Split

KINDS = ("another transcript", "a word replaced", "a word left out", "a word put in", "half left out")


class Planted:
    """A split with some transcripts replaced; `faults` has the kind of fault by index."""

    def __init__(self, split: Split, share: float, seed: int) -> None:
        self._split, self.n_samples = split, split.n_samples
        chance = random.Random(seed)
        texts = [self._split[index].text for index in range(len(split))]
        words = sorted({word for text in texts for word in text.split()})
        self._texts, self.faults = list(texts), {}
        for index in chance.sample(range(len(texts)), round(share * len(texts))):
            kind = chance.choice(KINDS)
            text = spoilt(texts[index].split(), kind, words, texts, chance)
            if text and text != texts[index]:
                self._texts[index], self.faults[index] = text, kind

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> Example:
        text = self._texts[index]
        return self._split[index]._replace(text=text, labels=np.array(encode(text), dtype=np.int64))


def spoilt(text: list[str], kind: str, words: list[str], texts: list[str], chance: random.Random) -> str:
    """A transcript with a fault of a kind."""
    at = chance.randrange(len(text))
    if kind == "another transcript":
        return chance.choice(texts)
    if kind == "a word replaced":
        text[at] = chance.choice(words)
    elif kind == "a word left out":
        del text[at]
    elif kind == "a word put in":
        text.insert(at, chance.choice(words))
    else:
        text = text[: len(text) // 2]
    return " ".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=bench.ROOT / "sweeps/configs/demo.yaml", help="settings (demo)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the fine-tune")
    parser.add_argument("--share", type=float, default=0.05, help="of the transcripts that are spoilt (0.05)")
    parser.add_argument("--cross-fit", type=int, metavar="K", help="judge each K-th by a fine-tune of the others")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    config = make_absolute(load(given.config, given.set), in_job=False)
    prepared = prepared_dataset(config.data, Path(config.storage) / CACHE)
    train = Planted(prepared.splits["train"], given.share, 0)
    recipe = config.recipe()
    if given.cross_fit:
        found, limit = cross_fitted(recipe, recipe.base, train, prepared.splits["dev"], given.cross_fit)
        show(train, found, limit, given.json)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finetune(
            recipe, Data(train, prepared.splits["dev"]), lambda _: Answer.CONTINUE, base=recipe.base, folder=folder
        )
        best = checkpoint.best(folder)
        assert best is not None
        found, limit = suspects(*checkpoint.load(best.folder), train)
    show(train, found, limit, given.json)


def show(train: Planted, found: list[Suspect], limit: float, file: Path | None) -> None:
    """Print how many of the planted faults were found, and write it."""
    hits = Counter(train.faults[one.place] for one in found if one.place in train.faults)
    planted = Counter(train.faults.values())
    rows = [[kind, f"{hits[kind]} of {planted[kind]}"] for kind in KINDS]
    print(bench.table(["planted", "found"], rows))
    figures = {
        "recall": hits.total() / planted.total(),
        "precision": hits.total() / max(1, len(found)),
        "suspects": len(found),
        "utterances": len(train),
        "limit": limit,
    }
    print(f"\nrecall {figures['recall']:.2f}, precision {figures['precision']:.2f}: {len(found)} suspects among "
          f"{len(train)} utterances, from {limit:.2f} nats for each letter on")  # fmt: skip
    bench.write(file, figures)


if __name__ == "__main__":
    main()
