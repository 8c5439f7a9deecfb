"""How long training waits for the disk where a state is written.

    python benchmarks/state_wait.py [--model demo|xlsr-300m] [--disk-s SECONDS] [--states N] [--dev N]

Method. `finetune` itself trains on made-up speech of Common Voice-like lengths and comes to `--states` rungs, where the
optimizer's state is written; a rung lies `--apart-s` seconds or more behind the one before. The disk is made slow:
`fsync` of a state takes `--disk-s` seconds more. Waited is what lies between an evaluation's end and its report, which
is the copy's rest, or the disk. Beside it is the same of the evaluations in between, which write none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import bench
import torch

from hausa_asr.recipe import TRAINING, Answer, FinetuneConfig, Progress
from hausa_asr.training import evaluation, saving
from hausa_asr.training import finetune as loop


def measure(model: str, disk_s: float, states: int, apart_s: float, dev: int, work: Path) -> dict[str, Any]:
    """Train, and say how long was waited where a state was due and where none was, in seconds."""
    fsync, evaluate = saving.fsync, evaluation.evaluate
    ended_s, waited = 0.0, {True: [], False: []}  # type: ignore[var-annotated]

    def slow(path: Path) -> None:
        fsync(path)
        if path.name == TRAINING:
            time.sleep(disk_s)

    def timed(*given: Any, **more: Any) -> Any:
        nonlocal ended_s
        scores = evaluate(*given, **more)
        ended_s = time.monotonic()
        return scores

    saving.fsync, evaluation.evaluate = slow, timed  # type: ignore[assignment]
    data = loop.Data(bench.MadeUpSplit(256), bench.MadeUpSplit(dev, seed=1))
    batch_s, every = 40.0, 4
    rungs = [2 * every * batch_s * (number + 1) for number in range(states)]
    recipe = FinetuneConfig(
        length_s=rungs[-1] + 1.5 * every * batch_s, batch_s=batch_s, micro_batch_s=80.0, eval_every_steps=every,
        mask_feature_length=16, checkpoint_every_s=1e6,
    )  # fmt: skip
    left, began_s = [*rungs], time.monotonic()

    def report(progress: Progress) -> Answer:
        nonlocal began_s
        took_s = time.monotonic() - ended_s
        is_rung = bool(left) and progress.seen_s >= left[0]
        if is_rung:
            left.pop(0)
            time.sleep(max(0.0, apart_s - (time.monotonic() - began_s)))
            began_s = time.monotonic()
        if not progress.last:
            waited[is_rung].append(took_s)
        return Answer.CONTINUE

    started = time.monotonic()
    base = bench.save_base(model, work / "base")
    loop.finetune(recipe, data, report, base=base, folder=work / "trial", evaluate_at_s=rungs)
    return {
        "model": model, "disk_s": disk_s, "states": len(waited[True]),
        "waited_s": statistics.median(waited[True]), "most_s": max(waited[True]),
        "without_state_s": statistics.median(waited[False]), "seconds": time.monotonic() - started,
        "machine": bench.machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["demo", "tiny", "xlsr-300m"], default="demo")
    parser.add_argument("--disk-s", type=float, default=2.0)
    parser.add_argument("--states", type=int, default=4)
    parser.add_argument("--apart-s", type=float, default=4.0)
    parser.add_argument("--dev", type=int, default=16, help="utterances")
    arguments = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(dir=".") as work:
        print(json.dumps(measure(**arguments, work=Path(work).absolute()), indent=1))


if __name__ == "__main__":
    main()
