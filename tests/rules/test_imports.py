"""Imports point down one line, heavy packages stay in their rooms, and the fine-tune runs with little installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Every room may import those above it, and none below.
LINE = [
    "hausa_asr",
    "hausa_asr.errors",
    "hausa_asr.utterance",
    "hausa_asr.numbers",
    "hausa_asr.text",
    "hausa_asr.metrics",
    "hausa_asr.training.schedules",
    "hausa_asr.recipe",
    "hausa_asr.audio.sources",
    "hausa_asr.settings.data",
    "hausa_asr.settings.recipe",
    "hausa_asr.settings.load",
    "hausa_asr.corpora",
    "hausa_asr.corpora.espeak",
    "hausa_asr.corpora.demo",
    "hausa_asr.corpora.pseudo",
    "hausa_asr.corpora.folder",
    "hausa_asr.corpora.archive",
    "hausa_asr.corpora.common_voice",
    "hausa_asr.corpora.hub",
    "hausa_asr.corpora.fleurs",
    "hausa_asr.audio.container_faults",
    "hausa_asr.audio.resample",
    "hausa_asr.audio.load",
    "hausa_asr.dataset.splits",
    "hausa_asr.dataset.refusals",
    "hausa_asr.dataset.report",
    "hausa_asr.audio.fingerprint",
    "hausa_asr.dataset.clip_store",
    "hausa_asr.dataset.decode_pool",
    "hausa_asr.dataset.decode_progress",
    "hausa_asr.dataset.overlap",
    "hausa_asr.dataset.prepared",
    "hausa_asr.dataset.select",
    "hausa_asr.dataset.report_picture",
    "hausa_asr.dataset.prepare",
    "hausa_asr.dataset.from_settings",
    "hausa_asr.decoding.greedy",
    "hausa_asr.training.updates",
    "hausa_asr.training.masking",
    "hausa_asr.training.augment",
    "hausa_asr.model.forward",
    "hausa_asr.training.loader",
    "hausa_asr.model.wav2vec2",
    "hausa_asr.model.feature_cache",
    "hausa_asr.training.optimizer",
    "hausa_asr.training.checkpoint",
    "hausa_asr.training.run",
    "hausa_asr.model.evaluate",
    "hausa_asr.training.finetune",
    "hausa_asr.demo_base",
    "hausa_asr.demo_base.pretrain",
    "hausa_asr.tracking.store",
    "hausa_asr.tracking.reader",
    "hausa_asr.tracking.tracker",
    "hausa_asr.export.folder",
    "hausa_asr.export.model_card",
    "hausa_asr.export.best_model",
    "hausa_asr.one_recipe",
    "hausa_asr.cli",
    "sweeps",
    "sweeps.pruning.rule",
    "sweeps.record.ledger",
    "sweeps.planning.slots",
    "sweeps.planning.budget",
    "sweeps.planning.speed",
    "sweeps.pruning.expected_length",
    "sweeps.planning.estimate",
    "sweeps.planning.admission",
    "sweeps.planning.forecast",
    "sweeps.driver.board",
    "sweeps.record.explain",
    "sweeps.driver.sweep_folder",
    "sweeps.verdict.verdict",
    "sweeps.verdict.audit",
    "sweeps.verdict.finalists",
    "sweeps.sampling.space",
    "sweeps.sampling.study",
    "sweeps.sampling.warm_start",
    "sweeps.driver.agenda",
    "sweeps.mlflow_mirror.run_contents",
    "sweeps.mlflow_mirror.mirror",
    "sweeps.driver.checkpoint_space",
    "sweeps.on_ray.searcher",
    "sweeps.on_ray.scheduler",
    "sweeps.on_ray.callbacks",
    "sweeps.on_ray.cluster",
    "sweeps.on_ray.guard",
    "sweeps.on_ray.slot",
    "sweeps.on_ray.tune_run",
    "sweeps.report.figures",
    "sweeps.report.html",
    "sweeps.report.pictures",
    "sweeps.report.page",
    "sweeps.verdict.result",
    "sweeps.driver.closing",
    "sweeps.replay.curves",
    "sweeps.replay.rules",
    "sweeps.replay.simulate",
    "sweeps.replay.compare",
    "sweeps.replay.savings",
    "sweeps.replay.picture",
    "sweeps.replay.__main__",
    "sweeps.run",
]

ONLY_IN = {
    "mlflow": {"hausa_asr.tracking.tracker"},
    "optuna": {f"sweeps.sampling.{name}" for name in ("space", "study", "warm_start")},
    "ray": {"sweeps.verdict.result"}
    | {
        f"sweeps.on_ray.{name}"
        for name in ("searcher", "scheduler", "slot", "tune_run", "callbacks", "cluster", "guard")
    },
    "datasets": {"hausa_asr.corpora.hub"},
    "jiwer": {"hausa_asr.metrics"},
    "soundfile": {"hausa_asr.audio.load", "hausa_asr.corpora.espeak"},
    "av": {"hausa_asr.audio.load"},
    "matplotlib": {"hausa_asr.dataset.report_picture", "sweeps.report.pictures", "sweeps.replay.picture"},
    "fsspec": {"hausa_asr.audio.sources"},
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("hausa_asr", "sweeps"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name == "__init__.py" and not path.stat().st_size:
                continue
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found.append((name, path))
    return found


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions; names that are only for the type checker too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in LINE else node.module


def test_the_line_names_every_file() -> None:
    assert {name for name, _ in modules()} == set(LINE)


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_point_up_the_line(name: str, path: Path) -> None:
    above = set(LINE[: LINE.index(name)])
    ours = {one for one in imports(path) if one.split(".")[0] in ("hausa_asr", "sweeps")}
    assert ours <= above, f"{name} imports {ours - above}"


@pytest.mark.parametrize(("name", "path"), modules(), ids=[name for name, _ in modules()])
def test_packages_stay_in_their_rooms(name: str, path: Path) -> None:
    for package in {one.split(".")[0] for one in imports(path)} & set(ONLY_IN):
        assert name in ONLY_IN[package], f"{name} imports {package}"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)


def test_the_fine_tune_needs_only_torch_torchaudio_transformers_and_jiwer() -> None:
    blocked = ["pydantic", "pyarrow", "soundfile", "ray", "mlflow", "optuna", "datasets", "av", "typer"]
    rooms = ["training.finetune", "training.schedules", "training.checkpoint", "model.evaluate", "metrics"]
    done = python(
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        f"for name in {rooms}: __import__('hausa_asr.' + name)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["hausa_asr.cli", "sweeps.run", "hausa_asr.settings.load"])
def test_help_and_settings_do_not_wait_for_the_heavy_packages(module: str) -> None:
    heavy = ["torch", "transformers", "datasets", "ray", "mlflow", "optuna"]
    done = python(
        f"import sys\nargv0 = sys.path[0]\nimport {module}\nloaded = [n for n in {heavy} if n in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    assert done.returncode == 0, done.stderr
