"""A thousand trials, sixteen at a time, on slots that train nothing: does the driver keep its pace and its memory?

    python benchmarks/scale.py [--trials 1000] [--slots 16] [--nodes 0] [--report-s S] [--start-s S] [--json FILE]

Method. The search of `sweeps/run.py` with the space and the starting points of the XLS-R preset, on a local Ray of 16
virtual CPUs. Only the slot is another: a reused Tune actor without Ray Train and torch that makes up a learning curve
from the recipe, writes checkpoints of a few bytes and reports as a real one does, twice a second (at once would be
faster than the driver, and few of the 16 at work; `at_once` says how many were), and for the first time after 20 s,
when all slots have started. Both times grow in proportion above 16 slots, unless `--report-s` and `--start-s` set them.
`--nodes` spreads the slots over several Ray nodes of this machine (`ray_nodes.py`), where workers are forks
(`forked_worker.py`): 512 would not fit otherwise; they have the lowest priority, and Ray's agents, nine here rather
than one on each machine, look at the processes once a minute. All above the slots is real: Ray Tune, agenda, study
(`gp`), rule, ledger with fsync, the disk's space, the board (to /dev/null) and the mirror on a SQLite MLflow. So that
the work per trial stays the same from the first to the last, all have as many evaluations and are ranked at the first
rung, and chance weighs more than the recipe; finalists and budget are off. Time is CPU time of the driver's main thread
(`time.thread_time`: neither the mirror's thread nor Ray's own threads count), read at each proposal, less what
`Study.update` and `Study.propose` took, which is the sampler's and is printed beside it. `time_growth` is that time per
trial over the last tenth of the trials, over that around the end of the first tenth: of 1,000 the trials 900 to 999
over 50 to 149. `memory_growth` is the driver's resident memory at the last proposal over that at a tenth of them. How
far trials go still differs a little, so the reports per trial of both windows are printed as well. At the end the
report is written. `tracker_ratio` is that of `mlflow_writes.py`, run afterwards.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a plain checkout will do

from hausa_asr.recipe import CHECKPOINT, STEP_PREFIX, TRAINING, Progress, step_folder  # noqa: E402
from hausa_asr.settings.load import load  # noqa: E402
from hausa_asr.settings.sweep import ClusterSettings, SweepConfig  # noqa: E402
from sweeps.on_ray.cluster import connected, prepare_environment  # noqa: E402


def _asked(option: str, usual: float) -> float:
    """An option that must be known before Ray is imported, or before a slot is sent to its process."""
    return float(sys.argv[sys.argv.index(option) + 1]) if option in sys.argv else usual


SLOTS = int(_asked("--slots", 16))
LOCAL = ClusterSettings(local_cpus=SLOTS)
prepare_environment(LOCAL)  # before anything imports ray

import numpy as np  # noqa: E402
from ray import tune  # noqa: E402

from hausa_asr.utterance import SAMPLE_RATE, Example  # noqa: E402
from sweeps.on_ray.calls import wait_for_call  # noqa: E402
from sweeps.on_ray.messages import MESSAGE, Reported, to_text  # noqa: E402

PRESET = ROOT / "sweeps/configs/xlsr_300m.yaml"
SETTINGS = [
    "space.batch_s={choices: [140]}",
    "space.freeze_transformer_fraction={choices: [0.0, 0.02, 0.1]}",
    "finetune.eval_every_steps=500",  # 6 evaluations of a whole trial
    "max_checkpoint_gb=1000",  # those of the stub take no room
    "pruning.first_rung=0.3",
    "pruning.reduction=2",
    "finalists.k=0",
    "resources.gpus_per_worker=0",
    "resources.cpus_per_worker=1",
]
PATIENCE_S = 600.0
_MORE = max(1.0, SLOTS / 16)  # with more slots each reports more rarely, and all take longer to be there
_REPORT_S, _START_S = _asked("--report-s", 0.5 * _MORE), _asked("--start-s", 20.0 * _MORE)


class StubDev:
    """A dev split of one utterance, of which only length and labels are asked for."""

    n_samples = np.array([4 * SAMPLE_RATE])

    def __len__(self) -> int:
        return 1

    def without_samples(self, index: int) -> Example:
        return Example("u0", np.zeros(0, dtype=np.float32), np.array([1, 2, 3]), "aba", "")


class StubSlot(tune.Trainable):
    """A slot to Ray Tune, with a made-up learning curve in place of workers."""

    def setup(self, config: dict[str, Any]) -> None:
        if "torch" in sys.modules:
            raise RuntimeError("a stub slot is to do without torch")
        os.nice(19)  # the driver first: hundreds of slots share its cores here
        self._name = f"slot-{time.time_ns()}"
        self._pause_s = _START_S
        self._take(config)

    def _take(self, config: dict[str, Any]) -> None:
        self._spec, job = config["slot"], config["job"]
        self._job, self._last, self._is_new = job, None, True
        if job is None:
            return
        self._folder = Path(job["folder"])
        self._recipe = job["recipe"]
        self._updates = round(self._recipe["length_s"] / self._recipe["batch_s"])
        chance = random.Random(job["trial"])
        # Best at a rate of about 1e-4; a plateau at WER 1, the longer the worse the recipe, then a fall to a floor.
        off = abs(math.log10(self._recipe["lr_peak"] / 1e-4)) + self._recipe["layerdrop"] + chance.gauss(0, 0.3)
        self._turn, self._floor = min(0.9, 0.2 + 0.4 * abs(off)), 0.3 + 0.3 * abs(off)
        saved = sorted(self._folder.glob(f"{STEP_PREFIX}*"))
        if saved:  # as a real trial does, it reports its newest checkpoint once more
            self._last = json.loads((saved[-1] / "progress.json").read_text())
        self._again = bool(saved)

    def step(self) -> dict[str, Any]:
        if self._job is None:
            if not self._is_new:
                wait_for_call(self._spec["calls_key"], self.trial_id, self._spec["idle_s"])
            self._is_new = False
            return {MESSAGE: ""}
        if self._again:
            self._again = False
        else:
            time.sleep(self._pause_s)
            self._pause_s = _REPORT_S
            self._last = self._evaluate()
        assert self._last is not None
        return {MESSAGE: to_text(Reported(Progress(**self._last), self._name))}

    def _evaluate(self) -> dict[str, Any]:
        before = self._last or {"step": 0, "best": None}
        step = min(before["step"] + self._recipe["eval_every_steps"], self._updates)
        part = step / self._updates
        heard = max(0.0, 1 - math.exp(-6 * (part - self._turn)))
        wer = 1 - (1 - self._floor) * heard
        figures = {"wer": wer, "cer": wer / 3, "loss": 3.2 - 0.3 * part - 2.5 * (1 - self._floor) * heard}
        best = before["best"]
        if best is None or (wer, figures["loss"]) < (best["wer"], best["loss"]):
            best = {"step": step, **figures}
        others = ("wer_folded", "cer_folded", "train_loss", "lr", "grad_norm", "masked_fraction", "nonfinite_steps",
                  "samples_per_s", "audio_s_per_s", "eval_runtime_s", "epoch")  # fmt: skip
        seen_s = step * self._recipe["batch_s"]
        progress = Progress(
            step=step,
            updates=self._updates,
            seen_s=seen_s,
            metrics={**figures, **dict.fromkeys(others, 1.0), "seen_s": seen_s},
            best=best,
            samples=[(f"u{k}", "ina kwana lafiya", "ina kwana") for k in range(10)],
            checkpoint=str(step_folder(self._folder, step)),
            best_checkpoint=str(step_folder(self._folder, best["step"])),
            last=step == self._updates,
        )
        self._save(progress)
        return asdict(progress)

    def _save(self, progress: Progress) -> None:
        for old in self._folder.glob(f"{STEP_PREFIX}*"):
            if str(old) != progress.best_checkpoint:
                shutil.rmtree(old)
        folder = Path(progress.checkpoint)
        folder.mkdir(parents=True)
        for name in (CHECKPOINT, TRAINING):
            (folder / name).write_text("{}")
        (folder / "progress.json").write_text(json.dumps(asdict(progress)))

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        pass

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._take(new_config)
        return True


@dataclass(frozen=True)
class Mark:
    """How the driver stood at a proposal: CPU seconds without the sampler and of the sampler, resident bytes, time."""

    driver_s: float
    sampler_s: float
    resident: int
    at: float


def run_sweep(config: SweepConfig, folder: Path) -> dict[str, Any]:
    """Run the search, and say how it went by windows of trials.

    Args:
        config: the sweep's settings.
        folder: where the sweep's folder and MLflow's database shall be.
    """
    from rich.console import Console

    from hausa_asr.tracking.tracker import Tracker
    from sweeps.driver.agenda import Agenda
    from sweeps.driver.board import Board
    from sweeps.driver.log_lines import log_to
    from sweeps.driver.reporting import report_of
    from sweeps.driver.sweep import Sweep, predictor_of, rule_of
    from sweeps.mlflow_mirror.mirror import Mirror
    from sweeps.on_ray.tune_run import search
    from sweeps.planning.forecast import forecast
    from sweeps.planning.slots import admit
    from sweeps.pruning.rungs import rungs_s
    from sweeps.record.ledger import Ledger
    from sweeps.record.names import LOG_FILE
    from sweeps.record.trial import TrialRecord
    from sweeps.sampling.study import Study

    class TimedStudy(Study):
        """The study, with a clock at its door."""

        sampler_s = 0.0

        def update(self, trial: TrialRecord) -> None:
            began = time.thread_time()
            super().update(trial)
            self.sampler_s += time.thread_time() - began

        def propose(self, number: int) -> dict[str, Any] | None:
            began = time.thread_time()
            found[number] = Mark(began - self.sampler_s, self.sampler_s, resident_bytes(), time.time())
            proposed = super().propose(number)
            self.sampler_s += time.thread_time() - began
            return proposed

    found: dict[int, Mark] = {}
    place = folder / "scale"
    with connected(LOCAL, place / "logs") as nodes, Path(os.devnull).open("w") as nowhere:
        plan = admit(config.resources, nodes, config.search.trials)
        place.mkdir()
        log_to(place / LOG_FILE)
        ledger = Ledger(place)
        ledger.append("sweep", name="scale", prepared=str(folder), fingerprint="made-up", rungs=rungs_s(config))
        ledger.append("opened", slots=plan.slots)
        mirror = Mirror(Tracker(config.mlflow.uri, "scale"), ledger, config, {"base": config.model.base})
        mirror.start()
        prepared: Any = SimpleNamespace(path=folder, splits={"dev": StubDev()})
        rule = rule_of(config, ledger.state)
        sweep = Sweep(config, ledger, prepared, plan, rule, predictor_of(config, rule))
        agenda = Agenda(config, ledger, sweep.rule, TimedStudy(config, predictor=sweep.predictor))
        began = time.monotonic()
        with Board(
            ledger,
            config,
            plan.slots,
            lambda state: str(forecast(state, config, plan.slots, time.time())),
            Console(file=nowhere),
        ) as board:
            if not search(sweep, agenda, mirror, board, slot=StubSlot):
                raise SystemExit("interrupted")
        wall_s = time.monotonic() - began
        agenda.finish()
        lacking = mirror.flush(PATIENCE_S)
        behind_s = time.monotonic() - began - wall_s
        mirror.close()
    state = ledger.state
    failed = [trial.reason for trial in state.trials.values() if trial.state == "failed"]
    if lacking or failed:
        raise SystemExit(f"MLflow lacks {lacking}; failed: {failed[:3]}")
    began_report = time.monotonic()
    page = report_of(config, state, place, None, live=False)
    report_s = time.monotonic() - began_report
    times = sorted(report.time for trial in state.trials.values() for report in trial.reports)
    tenth = config.search.trials // 10
    early, late = (
        window(found, times, first, last)
        for first, last in ((tenth // 2, tenth + tenth // 2), (9 * tenth, config.search.trials - 1))
    )
    # Trials that begin before the first of them reports have cost nothing to compare with.
    growth = {"time_growth": late["driver_ms"] / early["driver_ms"]} if early["reports"] and late["reports"] else {}
    return growth | {
        "memory_growth": found[config.search.trials - 1].resident / found[tenth].resident,
        "sampler_ms_100": early["sampler_ms"],
        "sampler_ms_1000": late["sampler_ms"],
        "trials": len(state.trials),
        "slots": plan.slots,
        "at_once": state.spent_s / wall_s,
        "wall_s": wall_s,
        "reports": len(times),
        "mirror_ms_per_report": 1000 * mirror.write_s / len(times),
        "mirror_behind_s": behind_s,
        "report_s": report_s,
        "report_mb": page.stat().st_size / 1e6,
        "windows": {"early": early, "late": late},
    }


def window(found: dict[int, Mark], times: list[float], first: int, last: int) -> dict[str, float]:
    """Averages per trial between two proposals; those of the recipes in print, which come first, have no mark."""
    first = min(number for number in found if number >= first)
    begin, end, count = found[first], found[last], last - first
    reports = sum(begin.at <= one < end.at for one in times) / count
    driver_ms = 1000 * (end.driver_s - begin.driver_s) / count
    return {
        "first": first,
        "last": last,
        "driver_ms": driver_ms,
        "sampler_ms": 1000 * (end.sampler_s - begin.sampler_s) / count,
        "reports": reports,
        "resident_mib": end.resident / 2**20,
        **({"driver_ms_per_report": driver_ms / reports} if reports else {}),
    }


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def tracker_ratio(folder: Path) -> float:
    """The time of our mirror over that of Ray's stock MLflow callback, as `mlflow_writes.py` has it."""
    figures = folder / "mlflow_writes.json"
    subprocess.run([sys.executable, str(ROOT / "benchmarks/mlflow_writes.py"), "--json", str(figures)], check=True)
    return float(json.loads(figures.read_text(encoding="utf-8"))["tracker_ratio"])


def on_nodes(count: int) -> int:
    """Run this again on a cluster of several nodes, and give its exit status."""
    import ray_nodes

    names = ("calls", "cluster", "messages")
    modules = ("numpy", "ray.tune", "hausa_asr.settings.load", *(f"sweeps.on_ray.{name}" for name in names))
    os.environ["REPORTER_UPDATE_INTERVAL_MS"] = "60000"
    with ray_nodes.cluster(patience=20, forks=modules) as nodes:
        for _ in range(count):
            nodes.add(cpus=SLOTS // count)
        environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def main() -> None:
    """Run the sweep, then the tracker's comparison, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="fewer show that it runs, and no more (1000)")
    parser.add_argument(
        "--slots", type=int, default=16, help="side by side, each an actor of some 110 MB, or 30 with --nodes (16)"
    )
    parser.add_argument("--nodes", type=int, default=0, help="Ray nodes that the slots are on; 0 for a local Ray (0)")
    parser.add_argument("--report-s", type=float, help="seconds between a slot's reports (0.5, more above 16 slots)")
    parser.add_argument("--start-s", type=float, help="seconds until a slot's first report (20, more above 16 slots)")
    parser.add_argument("--no-tracker", action="store_true", help="leave mlflow_writes.py out")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    if given.trials < 200:
        parser.error("--trials: under 200 there is nothing to compare")
    if given.nodes and "RAY_ADDRESS" not in os.environ:
        sys.exit(on_nodes(given.nodes))
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = [f"search.trials={given.trials}", f"storage={folder}", f"mlflow.uri=sqlite:///{folder}/mlflow.db"]
        figures = run_sweep(load(PRESET, [*SETTINGS, *own], environment={}), folder)
        if not given.no_tracker:
            figures["tracker_ratio"] = tracker_ratio(folder)
    import bench

    print(
        f"{figures['trials']} trials, {figures['at_once']:.1f} of {figures['slots']} slots at work on average, "
        f"{figures['reports']} reports, {figures['wall_s']:.0f} s; at the end MLflow was "
        f"{figures['mirror_behind_s']:.1f} s behind\n"
    )
    rows = [
        [
            f"trials {one['first']} to {one['last']}",
            *(
                f"{one[key]:.2f}" if key in one else "-"
                for key in ("driver_ms", "driver_ms_per_report", "sampler_ms", "reports")
            ),
            f"{one['resident_mib']:.0f}",
        ]
        for one in figures["windows"].values()
    ]
    print(bench.table(["", "driver, ms per trial", "per report", "sampler, ms", "reports per trial", "MiB"], rows))
    ratios = ", ".join(f"{key} {figures[key]:.3f}" for key in ("time_growth", "memory_growth", "tracker_ratio")
                       if key in figures)  # fmt: skip
    print(f"\n{ratios}\nreport.html: {figures['report_mb']:.1f} MB, written in {figures['report_s']:.1f} s")
    bench.write(given.json, figures)


if __name__ == "__main__":
    main()
