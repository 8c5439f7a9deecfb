"""A race of whole sweeps: ours, the stock pattern, Optuna alone and random search, on the same clock.

    python benchmarks/sweeps.py [--world demo|CONFIG.yaml] [--clock 360] [--seeds 5] [--against stock|optuna|random]
        [--json FILE] [--picture FILE.png]

Method. Each contestant is a command of its own that gets the same wall clock, from its start, Ray and imports included,
on the same machine: two trials side by side of one thread each, the same prepared dataset (made before the clock), the
same space and recipe, the same fine-tune (`hausa_asr.training.finetune.finetune`), an empty cache and an empty MLflow.
200 trials are allowed, which none of them can train. At the clock's end it gets a SIGTERM and is cleared away. Then,
and by the same code for all, its best checkpoint by dev WER is scored on test. Seed N is the seed of the search and of
every trial's training. The order of the contestants turns from seed to seed.

`ours` is `python sweeps/run.py` on the world's settings, with `finalists.k=0`, no budget and no starting points, so
that it searches all along: what it would do afterwards is not in the race (the baseline's end, finalists, soups). Its
trial 0, the baseline, which no other has, waits at its first rung meanwhile. Sampler and pruning are as shipped.
`stock` is the pattern of Ray's guide, a Tune driver function with a `TorchTrainer` inside, `OptunaSearch`, ASHA on WER
(reduction 2, from a fifth of the length) and `MLflowLoggerCallback`. It gets 16 logical CPUs for its two trials: where
its workers fit the machine exactly it hangs, since a stopped trial's resources are not given back in time. `optuna` is
Optuna with its defaults (TPE, MedianPruner) in one process per worker on a shared journal; `random` trains random
settings to their full length, one process per worker. Those that prune by WER evaluate at 0.2, 0.4 and 0.8 of the
length besides; `ours` at its own rungs. See race_stock.py and race_peers.py.

Every run is appended to `--out` at once; the command goes on where it stopped (a run is known by world, contestant,
seed and clock); to run one again, take its line out. Figures: trials begun and trained to their end, the first report,
the lowest dev WER over time and test WER (median and quartiles over seeds); then seed by seed beside the stock pattern,
or `--against` another: when its final dev WER was reached, over the clock and over the time at which it reached that
itself (geometric mean; one that never reached it counts with the whole clock), and the differences of dev and test WER
(mean). Intervals are 95 %, from draws of the seeds with replacement; over five seeds these are rather too narrow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench
import race_figures
import race_run
import torch

from hausa_asr.dataset.from_settings import prepared_dataset
from hausa_asr.errors import EXIT_USER_ERROR, UserError
from hausa_asr.recipe import CACHE
from hausa_asr.settings.load import load, make_absolute

DEMO = bench.ROOT / "sweeps/configs/demo.yaml"


def known_runs(out: Path, world: str, clock_s: float) -> dict[tuple[str, int], dict[str, Any]]:
    """The runs of this world and clock that are there, by contestant and seed; of two the later."""
    lines = out.read_text(encoding="utf-8").splitlines() if out.is_file() else []
    records = [one for one in map(json.loads, lines) if (one["world"], one["clock_s"]) == (world, clock_s)]
    return {(one["contestant"], one["seed"]): one for one in records}


def wanted_runs(names: list[str], seeds: int) -> list[tuple[str, int]]:
    """All runs, seed by seed; another contestant begins each time, since the machine may change while it races."""
    turn = len(names)
    return [(names[(place + seed) % turn], seed) for seed in range(seeds) for place in range(turn)]


def commit() -> str:
    """The commit that races, with `-dirty` if a file differs from it; "" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=bench.ROOT, capture_output=True, text=True)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", default="demo", help="demo, or the settings file of any sweep")
    parser.add_argument("--clock", type=float, default=360.0, metavar="SECONDS", help="what each run gets (360)")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds (5)")
    parser.add_argument("--only", action="append", choices=race_run.CONTESTANTS, help="run this one; can be repeated")
    parser.add_argument("--out", type=Path, default=bench.ROOT / "benchmarks/races.jsonl", help="the runs, a line each")
    parser.add_argument(
        "--against", choices=race_run.CONTESTANTS, default=race_figures.RIVAL, help="compare with this one (stock)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the lowest dev WER over time")
    given = parser.parse_args()
    path = DEMO if given.world == "demo" else Path(given.world).resolve()
    config = make_absolute(load(path), in_job=False)
    prepared = str(prepared_dataset(config.data, Path(config.storage) / CACHE).path.resolve())
    runs = known_runs(given.out, path.stem, given.clock)
    wanted = wanted_runs(given.only or list(race_run.CONTESTANTS), given.seeds)
    left = [one for one in wanted if one not in runs]
    print(f"{len(wanted) - len(left)} of {len(wanted)} runs are there, {len(left)} to go", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    for name, seed in left:
        key = {"world": path.stem, "contestant": name, "seed": seed, "clock_s": given.clock}
        where = {"machine": bench.machine(torch.device("cpu")), "commit": commit()}
        done = {**key, **race_run.run(name, path, prepared, seed, given.clock), **where}
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done) + "\n")
        runs[name, seed] = done
        print(
            f"{name} seed {seed}: {done['begun']} begun, {done['finished']} finished, first report after "
            f"{done['first_report_s']:.0f} s, dev WER {done['dev_wer']:.4f}, test WER {done['test_wer']:.4f}",
            flush=True,
        )
    raced = [one for _, one in sorted(runs.items(), key=lambda run: race_run.CONTESTANTS.index(run[0][0]))]
    if not raced:
        return
    found = race_figures.figures(raced, given.clock, given.against)
    print("\n" + race_figures.text(found, given.clock, given.against))
    commits = sorted({one["commit"] for one in raced})
    if len(commits) > 1:
        print(f"\nThese runs are of {len(commits)} commits: {', '.join(commits)}.")
    about = {"world": path.stem, "clock_s": given.clock, "commits": commits}
    bench.write(given.json, {**race_figures.flat(found, given.against), **about, "contestants": found})
    if given.picture:
        race_figures.draw(raced, given.clock, given.picture, f"Whole sweeps, {path.stem}: {given.clock:g} s, two cores")


if __name__ == "__main__":
    try:
        main()
    except UserError as fault:
        print(fault, file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
