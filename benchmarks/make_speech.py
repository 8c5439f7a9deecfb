"""Make the speech of the recorded worlds in a folder: `python benchmarks/make_speech.py --out FOLDER`.

`demo`, `noisy` and `few` are made here; other corpora are read from `--packed`, a folder with one folder for each, see
`speech.packed`. `--pack-demo FILE` writes which clips of the demo its preparation keeps; a machine without pyarrow
makes the same splits from that file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import bench
import speech


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=bench.ROOT / "runs/_data/worlds")
    parser.add_argument("--packed", type=Path, help="a folder with packed corpora")
    parser.add_argument("--demo", type=Path, help="what --pack-demo wrote")
    parser.add_argument("--pack-demo", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    kept = json.loads(chosen.demo.read_text(encoding="utf-8")) if chosen.demo else _kept_of_demo()
    if chosen.pack_demo:
        chosen.pack_demo.write_text(json.dumps(kept), encoding="utf-8")
        return
    speech.demo(chosen.out, kept)
    for name in speech.NOISY_TRAIN_S:
        speech.noisy(chosen.out, name)
    for folder in sorted(chosen.packed.iterdir()) if chosen.packed else []:
        if folder.is_dir() and list(folder.glob("*.ogg")):
            speech.packed(chosen.out, folder.name, folder)
    for file in sorted(chosen.out.glob("*/*.i16")):
        split = speech.MappedSplit(file)
        print(f"{file.parent.name} {file.stem}: {len(split)} clips, {split.n_samples.sum() / 16_000 / 60:.1f} minutes")


def _kept_of_demo() -> dict[str, list[str]]:
    from hausa_asr.dataset.from_settings import prepared_dataset
    from hausa_asr.recipe import CACHE
    from hausa_asr.settings.load import load, make_absolute

    config = make_absolute(load(bench.ROOT / "sweeps/configs/demo.yaml"), in_job=False)
    prepared = prepared_dataset(config.data, Path(config.storage) / CACHE)
    return {name: [example.id for example in split] for name, split in prepared.splits.items()}


if __name__ == "__main__":
    main()
