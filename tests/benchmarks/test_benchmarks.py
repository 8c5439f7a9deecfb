"""The benchmarks run, say how they measure, and compute what they say. Where little is installed: test_gpu_check.py."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hausa_asr.recipe import Progress

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TASK = {"model": "demo", "clips": 2, "batch_s": 9.0, "micro_batch_s": 12.0, "updates": 2, "warm_up": 1,
        "utterances": 12}  # fmt: skip


def run(code: str) -> list[dict[str, float]]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


def test_the_peer_is_the_real_trainer_where_it_can_be(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    rows = run(
        f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\nimport json, torch, step\nfrom pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        f"print(json.dumps(step.trainer({TASK!r}, torch.device('cpu'), 'demo', Path({str(tmp_path)!r}))))\n"
    )
    assert rows[-1]["audio_s_per_s"] > 0


@pytest.mark.parametrize(
    "name", ["step", "cache", "scaling", "prepare", "mlflow_writes", "scale", "turnaround", "sweeps", "gpu_check",
             "full_size", "averaging", "suspects", "planted_faults", "long_recording"]
)  # fmt: skip
def test_each_says_how_it_measures_and_keeps_its_figures(name: str) -> None:
    source = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(source)) or ""
    assert "Method." in told
    assert f"python benchmarks/{name}.py" in told
    assert '"--json"' in source


def test_a_stub_slot_does_without_torch_and_goes_on_where_its_trial_stood(tmp_path: Path) -> None:
    told = run(
        f"import sys, json\nsys.path.insert(0, {str(BENCHMARKS)!r})\nimport scale\nfrom dataclasses import asdict\n"
        "scale._REPORT_S = scale._START_S = 0\n"
        "recipe = asdict(scale.SweepConfig().recipe({'eval_every_steps': 100}))\n"
        f"job = {{'trial': 't000', 'folder': {str(tmp_path / 't000')!r}, 'recipe': recipe}}\n"
        "given = {'slot': {'idle_s': 0.01, 'calls_key': 'nobody calls'}}\n"
        "slot = scale.StubSlot({**given, 'job': job})\n"
        "print(slot.step()[scale.MESSAGE])\n"
        "slot.reset_config({**given, 'job': None})\n"
        "assert slot.step()[scale.MESSAGE] == ''\n"
        "slot.reset_config({**given, 'job': job})\n"
        "for _ in range(3): print(slot.step()[scale.MESSAGE])\n"
    )
    reports: list[Any] = [one["progress"] for one in told]
    assert [one["step"] for one in reports] == [100, 100, 200, 257]
    assert [one["last"] for one in reports] == [False, False, False, True]
    assert all(one["kind"] == "Reported" and one["slot"] for one in told)
    progress = {field.name for field in fields(Progress)}
    assert all(set(one) == progress for one in reports)
    kept = {int(one.name.removeprefix("step-")) for one in (tmp_path / "t000").iterdir()}
    assert kept == {257, reports[-1]["best"]["step"]}


@pytest.mark.parametrize("named", [True, False])
def test_turnaround_is_computed_from_a_ledger_alone_also_where_slots_have_no_names(tmp_path: Path, named: bool) -> None:
    def event(at_s: float, kind: str, trial: str = "", **more: Any) -> str:
        return json.dumps({"event": kind, "time": 100.0 + at_s, "trial": trial, **more})

    def told(at_s: float, trial: str, slot: str, seen_s: float, eval_s: float = 1.0) -> str:
        figures = {"audio_s_per_s": 2.0, "eval_runtime_s": eval_s}
        more = {"slot": slot} if named else {}
        return event(at_s, "reported", trial, seen_s=seen_s, metrics=figures, **more)

    # On slot a t0 for 10 s, then 2 s of nothing, t2 for 10 s, 4 s of waiting for t1, 1 s of nothing, t2 again for 5 s;
    # on slot b t1 for 26 s. Without names t2 is taken to go on where t1 was, which has not waited.
    lines = [
        event(-9, "sweep"), event(-9, "opened"), *(event(-8, "proposed", f"t{n}") for n in range(3)),
        event(-3, "started", "t0"), event(-2, "started", "t1"),
        told(10, "t0", "a", 18.0), event(10, "ended", "t0"), event(10.1, "started", "t2"),
        told(17, "t2", "a", 8.0), told(22, "t2", "a", 16.0), event(22, "paused", "t2"),
        told(26, "t1", "b", 48.0, 2.0), event(26, "ended", "t1"),
        event(26, "ranked", "t2", promoted=True), event(26.2, "started", "t2"),
        told(32, "t2", "a", 24.0), event(32, "ended", "t2"),
    ]  # fmt: skip
    ledger, kept = tmp_path / "ledger.jsonl", tmp_path / "told.json"
    ledger.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, str(BENCHMARKS / "turnaround.py"), "--sweeps", "--before", str(ledger)]
    subprocess.run([*command, "--json", str(kept)], check=True, capture_output=True, timeout=120)
    found = json.loads(kept.read_text(encoding="utf-8"))[f"before: {tmp_path.name}"]
    assert (found["gaps"], found["gap_s"], found["gap_p90_s"]) == pytest.approx((2, 1.5, 2.0))
    shares = [found[f"{name}_share"] for name in ("training", "evaluation", "between")]
    assert shares == pytest.approx([45 / 54, 6 / 54, 3 / 54])
    assert found["waiting_s"] == pytest.approx(4.0 if named else 0.0)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_slots_memory_is_measured_and_has_no_helpers_that_do_nothing_for_it() -> None:
    command = [sys.executable, str(BENCHMARKS / "slot_memory.py"), "--slots", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "beside its worker a slot takes" in done.stdout
    assert "SynchronizationActor" in done.stdout
    for helper in ("TrainController", "DatasetManager", "PlacementGroupCleaner"):
        assert helper not in done.stdout
