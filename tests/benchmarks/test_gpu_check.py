"""The check of a GPU runs whole with tiny models on a CPU: no GPU is needed to find that it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BLOCKED = [
    "accelerate", "av", "datasets", "espeakng_loader", "flashlight", "fsspec", "gradio", "matplotlib", "mlflow", "onnx",
    "onnxruntime", "optuna", "pandas", "plotly", "psutil", "pyarrow", "pydantic", "pynvml", "ray", "rich", "scipy",
    "sklearn", "soundfile", "typer",
]  # fmt: skip


@pytest.fixture
def few_packages(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that has little more than torch, torchaudio, transformers and jiwer."""
    folder = tmp_path / "site"
    folder.mkdir()
    lines = f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
    (folder / "sitecustomize.py").write_text(lines, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}


@pytest.mark.timeout(600)
def test_all_of_it_runs_small_where_little_is_installed(tmp_path: Path, few_packages: dict[str, str]) -> None:
    without = [] if shutil.which("g++") else ["--without", "compile"]
    figures = tmp_path / "figures.json"
    blocked = subprocess.run([sys.executable, "-c", "import ray"], capture_output=True, text=True, env=few_packages)
    assert "import of ray halted" in blocked.stderr
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--small", *without, "--json", str(figures),
         "--seconds", "800"],
        capture_output=True, text=True, timeout=580, env=few_packages,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert not [(name, one["fault"]) for name, one in found.items() if "fault" in one]
    assert found["machine"]["allocator"] == "native"
    rows = {name: one for name, one in found.items() if name.startswith("step ")}
    assert {"step xlsr-300m: Trainer", "step base: ours", "step xlsr-300m: ours, without buckets"} < set(rows)
    assert len(rows) == 9
    assert all(one["audio_s_per_s"] > 0 and one["peak_gib"] > 0 and one["audio_s"] > 5 for one in rows.values())

    presets = {path.stem for path in (BENCHMARKS.parent / "sweeps/configs").glob("*.yaml")} - {"demo"}
    assert {name.removeprefix("preset ") for name in found if name.startswith("preset ")} == presets
    for preset in presets:
        one = found[f"preset {preset}"]
        assert one["micro_batch_s"] == one["asked_s"] > 0
        assert (one["learned"] < one["weights"] / 10) == (preset == "mms_1b")

    resume = found["resume"]
    assert resume["same_report"] is True
    assert (resume["to the pause"]["end"], resume["resumed"]["end"]) == ("paused", "finished")
    paused = resume["to the pause"]
    assert [len(paused[f"{what}_s"]) for what in ("state_copy", "state_wait", "state_write")] == [1, 1, 1]
    assert len(paused["waited_write_s"]) == 1 and paused["bytes"]
    assert len(found["precision"]["xlsr-300m: float32"]) == len(found["precision"]["xlsr-300m: bfloat16"]) == 3
    assert len(found["ranks"]["two ranks"]) == 3
    assert found["ranks"]["two ranks against one"]["largest"] < 1e-5
    if not without:
        assert found["compile on"]["trial 0"]["new_graphs"] > 0
        assert found["compile off"]["trial 0"]["new_graphs"] == 0
    assert found["small models"]["workers"] == {"asked": 2, "ready": 2}
    assert found["small models"]["cpu, 2 at once"]["answered"] == 2
    assert "same_report True" in done.stdout  # the table
    assert not list(tmp_path.glob("gpu-check-*"))


def test_a_part_that_fails_or_hangs_is_recorded_and_the_others_run(tmp_path: Path) -> None:
    """With a process for each, as on a GPU; the whole small run has one process for all."""
    code = (
        f"import sys, time\nsys.path.insert(0, {str(BENCHMARKS)!r})\nfrom pathlib import Path\nimport gpu_check\n"
        f"work = Path({str(tmp_path)!r})\n"
        "figures = gpu_check.Figures(work / 'figures.json')\n"
        "checks = gpu_check.Checks(figures, True, work, 600.0)\n"
        "checks.small, checks.processes = False, gpu_check.Processes(figures, {'OMP_NUM_THREADS': '1'}, reused=False)\n"
        "soon = lambda seconds: time.monotonic() + seconds\n"
        "groups = [[('broken', 'resume', {'updates': 'twelve'})], [('sound', 'machine', {})]]\n"
        "checks.beside(groups, soon(200))\n"
        "checks.alone('hangs', 'small', soon(2))\n"  # it waits for lines that do not come
        "checks.alone('late', 'machine', soon(-1))\n"
        "checks.processes.close()\n"
        "print(gpu_check.report(figures.found))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert "TypeError" in found["broken"]["fault"]
    assert found["hangs"]["fault"] == "stopped at its time limit"
    assert found["sound"]["allocator"] == "native" and "fault" not in found["sound"]
    assert found["late"]["fault"].startswith("not begun")
    assert "FAULT TypeError" in done.stdout


def test_precision_writes_what_it_has_as_it_goes_since_its_time_may_end_before_it_does(tmp_path: Path) -> None:
    code = (
        f"import sys, json\nsys.path.insert(0, {str(BENCHMARKS)!r})\nfrom pathlib import Path\n"
        "import torch, gpu_check, gpu_check_parts as parts\n"
        f"work, cpu = Path({str(tmp_path)!r}), torch.device('cpu')\n"
        "tasks = gpu_check.tasks(True, work)\n"
        "list(parts.save_bases({**tasks['bases'], 'kinds': ['tiny']}, cpu, work))\n"
        "print(json.dumps(list(parts.precision(tasks['precision'], cpu, work))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = [next(iter(one.items())) for one in json.loads(done.stdout.splitlines()[-1])]
    sizes = [(name.partition(": ")[2], value["updates"] if isinstance(value, dict) else len(value))
             for name, value in found if name.startswith("xlsr-300m")]  # fmt: skip
    low, exact, both = "bfloat16", "float32", "bfloat16 against float32"
    assert sizes == [(low, 2), (low, 3), (exact, 2), (both, 2), (exact, 3), (both, 3)]
    assert 0 < dict(found)["xlsr-300m: bfloat16 against float32"]["largest"] < 0.1, "and it is bfloat16"
