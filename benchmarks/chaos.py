"""Break a cluster under whole sweeps: is anything lost, doubled or burned, and what does each event cost?

    python benchmarks/chaos.py [--runs 20] [--rungs] [--only EVENT]... [--json FILE]

Method. Each run is a sweep of five trials of the demo model, by `sweeps/run.py` on a Ray cluster of a head without CPUs
and two nodes of one CPU (`ray_nodes.py`: processes of this machine). Each event below has its turn; the run's seed
draws the moment, from the second to the eighth report. All trials are random ones and none is pruned, so on a CPU each
has the same learning curve whatever happens: the first run, in which nothing breaks, says which. They can go on from
each of their evaluations (`checkpoint_every_s: 0`); by default a crash may cost the ten minutes since the last state.

- `kill`: a node is killed, and another one comes 10 s later; `lose`: none comes; `short`: none comes, and the sweep
  asks for two slots all the same; `join`: a third node comes.
- `starve`: somebody else's job holds one of the two CPUs for a minute from the start; `taken`: it takes the CPU of a
  node that is added, and gives it back after a minute.
- `disk`: a second node comes only now, and its disk for checkpoints is full; `base`: it lacks the base checkpoint.
- `cut`: a node's cable is pulled for a minute, while what runs on it goes on (without root it stands still for it);
  `drain`: a node is given 30 s notice, as spot machines get it, then killed, and another one comes; `head`: head, nodes
  and driver are killed, and the sweep is resumed on another cluster; `stop`: the driver is sent SIGTERM, as `ray job
  stop` does, and the sweep is resumed on the same.

With `--rungs` a sweep of eight trials is pruned, by loss. It has one slot, so that the order in which trials come to a
rung is its own, and the node that breaks is the one at work. With `--twice` a second thing breaks some reports later.

Checked after each run: every trial ended as in the quiet run; none was proposed, reported or ended twice; every curve
is that of the quiet run, bit for bit, but for one more evaluation after a notice or a stop; at each rung the same
trials were ranked by the same figures, and the same went on; MLflow has one run for each trial, with the ledger's whole
curve of WER; a node that joins was used. Printed: how much longer the sweep took than the quiet one (with a node fewer
it must); the time from the last event to the next report of any trial, less the quiet run's longest wait; and that from
a node's start to the first report of a trial on it. `checkpoint_every_s` is 0 here: with the default a lost node costs
up to ten minutes of training.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import bench
import ray_nodes
from chaos_checks import faults
from chaos_sweep import Run

SETTINGS: dict[str, Any] = {
    "model": {"base": "demo"},
    "finetune": {
        "length_s": 900, "batch_s": 12, "micro_batch_s": 24, "eval_every_steps": 15, "dev_part_s": 40,
        "mask_feature_length": 16, "checkpoint_every_s": 0,
    },
    "baseline": {"lr_peak": 3e-3, "schedule": "linear"},
    "space": {"lr_peak": {"low": 1e-3, "high": 1e-2, "log": True}},
    "search": {"trials": 5, "random_trials": 5},
    "pruning": {"rule": "none"},
    "finalists": {"k": 0},
    "cluster": {"startup_timeout_s": 90, "report_timeout_s": 60},
}  # fmt: skip
RUNGS: dict[str, Any] = {
    "search": {"trials": 8, "random_trials": 8}, "resources": {"slots": 1},
    "pruning": {"rank_by": "loss", "first_rung": 0.3, "reduction": 2},
}  # fmt: skip
EVENTS = ("kill", "lose", "short", "join", "starve", "taken", "disk", "base", "cut", "drain", "head", "stop")
AT_WORK = ("kill", "cut", "drain", "head", "stop")
"""The events that can befall the node at work when there is only one slot."""
PAIRS = (("kill", "cut"), ("drain", "head"), ("join", "kill"), ("cut", "drain"), ("taken", "kill"), ("head", "kill"))
"""What breaks with `--twice`, one after the other, beside what runs on alone."""
_CUT_S, _NOTICE_S = 60.0, 30


def quiet(run: Run, chance: random.Random) -> None:
    """Nothing breaks."""
    run.add()
    run.add()
    run.start("--config", str(run.settings))


def broken(events: Sequence[str], rungs: bool) -> Callable[[Run, random.Random], None]:
    """The script of a run in which one thing breaks, or one after the other."""

    def script(run: Run, chance: random.Random) -> None:
        first, reports = events[0], 0
        for _ in range(1 if rungs or first in ("disk", "base") else 2):
            run.add()
        if first == "starve":
            run.hold_cpu()
            time.sleep(5)
        more = ("--set", "resources.slots=2", "--set", "cluster.startup_timeout_s=300") if first == "short" else ()
        run.start("--config", str(run.settings), *more)
        for event in events:
            reports += chance.randint(2, 8 if event == first else 5)
            if event != "starve":
                run.until(reports)
            if rungs:
                run.add()
            run.event_s = time.time()
            strike(run, event)

    return script


def strike(run: Run, event: str) -> None:
    """Let a thing break."""
    nodes = run.nodes
    if event in ("kill", "lose", "short"):
        run.victim().kill()
    if event == "kill":
        run.later(10.0, run.add)
    if event == "join":
        run.joined_s = time.time()
        run.joined = run.add().name
    if event == "disk":
        run.add(covered=[(run.folder / "trials", "64k")])
    if event == "base":
        run.add(covered=[(run.base, "4k")])
    if event == "taken":
        run.add()
        run.hold_cpu()
    if event == "cut":
        victim = run.victim()
        nodes.cut_off(victim)
        run.later(_CUT_S, lambda: nodes.connect(victim))
    if event == "drain":
        victim = run.victim()
        nodes.drain(victim, _NOTICE_S)
        run.later(_NOTICE_S, victim.kill)
        run.add()
    if event == "head":
        run.start_anew()
    if event == "stop":
        run.stop_and_resume()


def one_run(
    event: str, seed: int, prepared: Path, settings: dict[str, Any], expected: list[dict[str, Any]], script: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One sweep; its figures, and its events."""
    with tempfile.TemporaryDirectory(prefix="hausa-asr-chaos-") as folder, ray_nodes.cluster() as nodes:
        run = Run(Path(folder), prepared, nodes, settings)
        began_s = time.time()
        fault = ""
        try:
            script(run, random.Random(seed))
        except RuntimeError as error:
            fault = str(error)
        run.end()
        events = run.events()
        took_s = (events[-1]["time"] if events else time.time()) - began_s
        times = [event["time"] for event in run.reports()]
        after = next((at for at in times if at > run.event_s), time.time()) if run.event_s else 0.0
        waits = [later_s - sooner_s for sooner_s, later_s in pairwise(times)]
        crashes = Counter(event["cause"] for event in events if event["event"] == "paused" and event.get("cause"))
        trials = settings["search"]["trials"]
        wrong = [fault] if fault else []
        if run.driver.returncode:
            wrong.append(f"the driver ended with {run.driver.returncode}: {run.output.read_text()[-800:]}")
        wrong += faults(
            events, trials, run.work / "mlflow.db", expected or events, noticed="drain" in event or "stop" in event
        )
        used = len({node for one in run.reports() for node in one["nodes"]})
        on_it = [one["time"] for one in run.reports() if run.joined in one["nodes"]]
        if run.joined and not on_it:
            wrong.append("the node that joined was not used")
        figures = {
            "event": event, "seed": seed, "took_s": round(took_s, 1), "longest_wait_s": round(max(waits, default=0), 1),
            "event_to_report_s": round(after - run.event_s, 1) if run.event_s else None, "pauses": dict(crashes),
            "nodes": used, "faults": wrong,
            "join_to_report_s": round(on_it[0] - run.joined_s, 1) if on_it else None,
        }  # fmt: skip
        return figures, events


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the cluster ends too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="sweeps in which something breaks (20)")
    parser.add_argument("--rungs", action="store_true", help="prune, with one slot")
    parser.add_argument("--twice", action="store_true", help="two things break in each sweep, one after the other")
    parser.add_argument(
        "--only", action="append", choices=EVENTS, help="this event, with --twice the pairs with it; may be repeated"
    )
    parser.add_argument("--json", type=Path, help="write the figures here, as they come")
    given = parser.parse_args()
    events = given.only or (AT_WORK if given.rungs else EVENTS)
    if given.twice and given.rungs:
        parser.error("--twice: not with --rungs")
    if given.rungs and (other := set(events) - set(AT_WORK)):
        parser.error(f"--rungs: not with {', '.join(sorted(other))}")
    events = [one for one in events if one not in ("disk", "base") or ray_nodes.may_mount()]
    scripts: list[tuple[str, ...]] = [(one,) for one in events]
    if given.twice:
        scripts = [pair for pair in PAIRS if {*pair} & {*events}]
    settings = {**SETTINGS, **(RUNGS if given.rungs else {})}
    with tempfile.TemporaryDirectory(prefix="hausa-asr-chaos-data-") as folder:
        prepared = Path(folder) / "prepared"
        subprocess.run(
            [sys.executable, "-m", "hausa_asr.cli", "prepare", "--corpus", "demo", "--out", str(prepared)], check=True,
            cwd=bench.ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        first, expected = one_run("none", 0, prepared, settings, [], quiet)
        found = [first]
        _show(first, first)
        for seed in range(1, given.runs + 1):
            what = scripts[(seed - 1) % len(scripts)]
            figures, _ = one_run("+".join(what), seed, prepared, settings, expected, broken(what, given.rungs))
            found.append(figures)
            _show(figures, first)
            bench.write(given.json, {"machine": bench.machine(bench.torch.device("cpu")), "runs": found})
    sys.exit(any(one["faults"] for one in found))


def _show(figures: dict[str, Any], first: dict[str, Any]) -> None:
    waited = figures["event_to_report_s"]
    lost = "" if waited is None else f"{max(0.0, waited - first['longest_wait_s']):.0f} s lost, "
    longer = f"{figures['took_s'] - first['took_s']:+.0f} s"
    causes = ", ".join(f"{count} {cause}" for cause, count in figures["pauses"].items()) or "no pause"
    joined_s = figures["join_to_report_s"]
    joined = "" if joined_s is None else f", the new one's first report after {joined_s:.0f} s"
    verdict = "; ".join(figures["faults"]) or "whole"
    print(f"{figures['seed']:3} {figures['event']:10} {longer:>7}, {lost}{causes}, {figures['nodes']} nodes{joined}: "
          f"{verdict}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
