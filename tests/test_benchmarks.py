"""The benchmarks run: the step's rows where little is installed, both sides of each comparison on the same work."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TASK = {"model": "demo", "clips": 2, "batch_s": 9.0, "micro_batch_s": 12.0, "updates": 2, "warm_up": 1,
        "utterances": 12}  # fmt: skip


def run(code: str) -> list[dict[str, float]]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


def test_the_steps_rows_need_only_torch_torchaudio_transformers_and_jiwer(tmp_path: Path) -> None:
    blocked = ["pydantic", "pyarrow", "soundfile", "ray", "mlflow", "optuna", "datasets", "av", "typer", "fsspec"]
    rows = run(
        f"import sys\nfor name in {blocked}: sys.modules[name] = None\n"
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\nimport json, torch, step\nfrom pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        f"for number, (row, more) in enumerate([('ours', {{}}), ('ours', {{'cache': False, 'buckets': False, "
        f"'edges': False}}), ('loop', {{}}), ('loop', {{'by_length': True}})]):\n"
        f"    found = step.ROWS[row]({{**{TASK!r}, **more}}, torch.device('cpu'), 'demo', Path({str(tmp_path)!r}, "
        "str(number)))\n"
        "    print(json.dumps(found))\n"
    )
    assert len(rows) == 4
    assert all(row["audio_s_per_s"] > 0 and row["peak_gib"] > 0 and row["audio_s"] > 5 for row in rows)


def test_the_peer_is_the_real_trainer_where_it_can_be(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    rows = run(
        f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\nimport json, torch, step\nfrom pathlib import Path\n"
        "torch.set_num_threads(1)\n"
        f"print(json.dumps(step.trainer({TASK!r}, torch.device('cpu'), 'demo', Path({str(tmp_path)!r}))))\n"
    )
    assert rows[-1]["audio_s_per_s"] > 0


@pytest.mark.parametrize("name", ["step", "cache", "scaling", "prepare"])
def test_each_says_how_it_measures_and_keeps_its_figures(name: str) -> None:
    source = (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(source)) or ""
    assert "Method." in told
    assert f"python benchmarks/{name}.py" in told
    assert '"--json"' in source
