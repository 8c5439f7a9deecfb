"""Imports point down one line, heavy packages stay in their rooms, and the fine-tune runs with little installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

# Every room may import those above it, and none below.
LINE = [
    "hausa_asr",
    "hausa_asr.errors",
    "hausa_asr.manifest",
    "hausa_asr.numbers",
    "hausa_asr.text",
    "hausa_asr.metrics",
    "hausa_asr.schedules",
    "hausa_asr.recipe",
    "hausa_asr.sources",
    "hausa_asr.data_settings",
    "hausa_asr.recipe_settings",
    "hausa_asr.config",
    "hausa_asr.corpora",
    "hausa_asr.corpora.espeak",
    "hausa_asr.corpora.demo",
    "hausa_asr.corpora.pseudo",
    "hausa_asr.corpora.folder",
    "hausa_asr.corpora.archive",
    "hausa_asr.corpora.common_voice",
    "hausa_asr.corpora.hub",
    "hausa_asr.corpora.fleurs",
    "hausa_asr.headers",
    "hausa_asr.resample",
    "hausa_asr.audio",
    "hausa_asr.splits",
    "hausa_asr.refusals",
    "hausa_asr.report",
    "hausa_asr.fingerprint",
    "hausa_asr.clips",
    "hausa_asr.decoding",
    "hausa_asr.watch",
    "hausa_asr.leaks",
    "hausa_asr.prepared",
    "hausa_asr.choosing",
    "hausa_asr.picture",
    "hausa_asr.prepare",
    "hausa_asr.data",
    "hausa_asr.decode",
    "hausa_asr.batching",
    "hausa_asr.masking",
    "hausa_asr.augment",
    "hausa_asr.forward",
    "hausa_asr.loading",
    "hausa_asr.model",
    "hausa_asr.features",
    "hausa_asr.optimizer",
    "hausa_asr.checkpoint",
    "hausa_asr.training",
    "hausa_asr.evaluate",
    "hausa_asr.finetune",
    "hausa_asr.base",
    "hausa_asr.base.pretrain",
    "hausa_asr.tracking_store",
    "hausa_asr.tracking_reading",
    "hausa_asr.tracking",
    "hausa_asr.model_folder",
    "hausa_asr.card",
    "hausa_asr.export",
    "hausa_asr.trial",
    "hausa_asr.cli",
    "sweeps",
    "sweeps.rule",
    "sweeps.ledger",
    "sweeps.plan",
    "sweeps.budget",
    "sweeps.speed",
    "sweeps.lengths",
    "sweeps.estimate",
    "sweeps.admission",
    "sweeps.forecast",
    "sweeps.progress",
    "sweeps.explain",
    "sweeps.begin",
    "sweeps.verdict",
    "sweeps.audit",
    "sweeps.finalists",
    "sweeps.space",
    "sweeps.study",
    "sweeps.warm",
    "sweeps.agenda",
    "sweeps.mirrored",
    "sweeps.mirror",
    "sweeps.disk",
    "sweeps.searcher",
    "sweeps.scheduler",
    "sweeps.callbacks",
    "sweeps.connect",
    "sweeps.watch",
    "sweeps.slot",
    "sweeps.search",
    "sweeps.tally",
    "sweeps.page",
    "sweeps.pictures",
    "sweeps.report",
    "sweeps.result",
    "sweeps.end",
    "sweeps.curves",
    "sweeps.racers",
    "sweeps.race",
    "sweeps.standings",
    "sweeps.saved",
    "sweeps.race_picture",
    "sweeps.replay",
    "sweeps.run",
]

ONLY_IN = {
    "mlflow": {"hausa_asr.tracking"},
    "optuna": {"sweeps.space", "sweeps.study", "sweeps.warm"},
    "ray": {"sweeps.searcher", "sweeps.scheduler", "sweeps.slot", "sweeps.search", "sweeps.callbacks",
            "sweeps.connect", "sweeps.watch", "sweeps.result"},
    "datasets": {"hausa_asr.corpora.hub"},
    "jiwer": {"hausa_asr.metrics"},
    "soundfile": {"hausa_asr.audio", "hausa_asr.corpora.espeak"},
    "av": {"hausa_asr.audio"},
    "matplotlib": {"hausa_asr.picture", "sweeps.pictures", "sweeps.race_picture"},
    "fsspec": {"hausa_asr.sources"},
}  # fmt: skip


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in ("hausa_asr", "sweeps"):
        for path in sorted((ROOT / package).rglob("*.py")):
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
    rooms = ["finetune", "model", "batching", "schedules", "checkpoint", "evaluate", "metrics", "features", "augment"]
    done = python(
        "import sys\n"
        f"for name in {blocked}: sys.modules[name] = None\n"
        f"for name in {rooms}: __import__('hausa_asr.' + name)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["hausa_asr.cli", "sweeps.run", "hausa_asr.config"])
def test_help_and_settings_do_not_wait_for_the_heavy_packages(module: str) -> None:
    heavy = ["torch", "transformers", "datasets", "ray", "mlflow", "optuna"]
    done = python(
        f"import sys\nargv0 = sys.path[0]\nimport {module}\nloaded = [n for n in {heavy} if n in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    assert done.returncode == 0, done.stderr
