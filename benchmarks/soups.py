"""What weight averaging gives in each recorded world: `python benchmarks/soups.py --speech FOLDER --json FILE`.

Method. `record_curves.py` keeps the best checkpoint of every fine-tune of full length on seed 0, which share base and
head. Of these, as after a sweep, the `--of` best by dev WER are taken; `soup.greedy` averages them, judged on dev; the
best single one and the average are then scored on test, once. Worlds without test speech show dev only.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import bench
import torch
from speech import MappedSplit
from worlds import WORLDS

from hausa_asr.model.evaluate import evaluate
from hausa_asr.training import checkpoint
from hausa_asr.training.soup import gain, greedy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, default=bench.ROOT / "runs/_data/worlds")
    parser.add_argument("--base", action="append", default=[], metavar="NAME=FOLDER", help="a base checkpoint")
    parser.add_argument("--of", type=int, default=16, help="candidates")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    bases = dict(one.split("=", 1) for one in chosen.base)
    figures = {}
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    for name, world in WORLDS.items():
        folders = sorted((chosen.speech / "best" / name).glob("*/step-*"))
        if len(folders) < 4:
            continue
        started = time.monotonic()
        base = bases.get(world.base, world.base)
        metrics = {one: json.loads((one / "progress.json").read_text("utf-8"))["metrics"]["wer"] for one in folders}
        folders.sort(key=metrics.__getitem__)
        dev = MappedSplit(chosen.speech / world.speech / "dev.i16")
        made = greedy(folders[: chosen.of], dev, base=base, device=device)
        row = {
            "candidates": len(folders[: chosen.of]),
            "members": [one.parent.name for one in made.members],
            "dev_single": made.single.wer,
            "dev_soup": made.soup.wer,
            "dev_gain": [made.gain.wer, made.gain.low, made.gain.high],
            "accepted": made.accepted,
        }
        file = chosen.speech / world.speech / "test.i16"
        if file.is_file():
            test = MappedSplit(file)
            single, processor = checkpoint.load(made.members[0], base)
            alone = evaluate(single.to(device), processor, test)  # type: ignore[arg-type]
            mixed = evaluate(made.model, made.processor, test)
            won = gain(mixed, alone)
            row |= {"test_single": alone.wer, "test_soup": mixed.wer, "test_gain": [won.wer, won.low, won.high]}
        figures[name] = row | {"seconds": round(time.monotonic() - started, 1)}
        print(name, json.dumps(figures[name]), flush=True)
        bench.write(chosen.json, figures)


if __name__ == "__main__":
    main()
