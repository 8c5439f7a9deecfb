"""Imports point down, no room holds a circle, heavy packages stay in their rooms, and no file is too long."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From top to bottom: a room, or a file that is none, may import only what lies below it.
FLOORS = [
    "sweeps.run",
    "sweeps.submit_command",
    "sweeps.watch_command",
    "sweeps.upload",
    "sweeps.on_ray",
    "sweeps.driver",
    "sweeps.report",
    "sweeps.mlflow_mirror",
    "sweeps.verdict",
    "sweeps.planning",
    "sweeps.sampling",
    "sweeps.replay",
    "sweeps.record",
    "sweeps.prediction",
    "sweeps.pruning",
    "sweeps.wording",
    "sweeps",
    "hausa_asr.cli",
    "hausa_asr.further_commands",
    "hausa_asr.export_command",
    "hausa_asr.serve_command",
    "hausa_asr.doctor_command",
    "hausa_asr.lm_commands",
    "hausa_asr.transcribe_command",
    "hausa_asr.command_options",
    "hausa_asr.one_recipe",
    "hausa_asr.demo_base",
    "hausa_asr.export",
    "hausa_asr.diagnosis",
    "hausa_asr.language_model",
    "hausa_asr.training",
    "hausa_asr.dataset",
    "hausa_asr.serving",
    "hausa_asr.model",
    "hausa_asr.decoding",
    "hausa_asr.settings",
    "hausa_asr.corpora",
    "hausa_asr.audio",
    "hausa_asr.storage",
    "hausa_asr.tracking",
]
GROUND = "hausa_asr"
"""Every other file of `hausa_asr` itself: light, and imported by all."""

ONLY_IN = {
    "mlflow": {"hausa_asr.tracking"},
    "optuna": {"sweeps.sampling", "sweeps.report"},
    "ray": {"sweeps.on_ray"},
    "datasets": {"hausa_asr.corpora"},
    "jiwer": {GROUND, "hausa_asr.diagnosis"},
    "rapidfuzz": {GROUND, "hausa_asr.diagnosis"},
    "soundfile": {"hausa_asr.audio", "hausa_asr.corpora"},
    "av": {"hausa_asr.audio"},
    "matplotlib": {"hausa_asr.dataset", "hausa_asr.export", "sweeps.replay"},
    "pynvml": {"hausa_asr.training", "sweeps.planning"},
    "plotly": {"sweeps.report"},
    "jinja2": {GROUND},
    "gradio": {"hausa_asr.serving"},
    "fsspec": {"hausa_asr.audio", "hausa_asr.storage"},
    "flashlight": {"hausa_asr.decoding"},
    "pysubs2": {"hausa_asr.decoding"},
}
LONGEST, LONG = 400, 300
"""Lines: none is longer than the one, and none than the other without a reason in its first lines."""


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its name."""
    files = chain(*(sorted((ROOT / package).rglob("*.py")) for package in ("hausa_asr", "sweeps")))
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return {name: path for name, path in names.items() if not name.endswith("__pycache__")}


def room(module: str) -> str:
    """The room that a module is in: the longest of `FLOORS` that begins its name, else the ground floor."""
    fitting = [floor for floor in FLOORS if module == floor or module.startswith(f"{floor}.")]
    return max(fitting, key=len, default=GROUND)


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module that a file imports, also inside functions and for the type checker."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules() else node.module for name in inner)


def test_every_room_is_on_the_floor_plan() -> None:
    folders = {name for name, path in modules().items() if path.name == "__init__.py" and name not in ("hausa_asr",)}
    assert folders - {"hausa_asr.settings.configs"} <= set(FLOORS)
    assert set(FLOORS) <= set(modules())


@pytest.mark.parametrize("name", modules())
def test_imports_point_down(name: str) -> None:
    order = [*FLOORS, GROUND]
    here = order.index(room(name))
    allowed = {"hausa_asr"} if name == "hausa_asr" else set()  # the public face offers rooms, lazily
    for other in {room(one) for one in imports(modules()[name]) if one.split(".")[0] in ("hausa_asr", "sweeps")}:
        assert order.index(other) >= here or room(name) in allowed, f"{name} imports {other}, which lies above it"


@pytest.mark.parametrize("floor", [*FLOORS, GROUND])
def test_no_room_holds_a_circle(floor: str) -> None:
    inside = {name for name in modules() if room(name) == floor and name != "hausa_asr"}
    graph = {name: {one for one in imports(modules()[name]) if one in inside and one != name} for name in inside}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


@pytest.mark.parametrize("name", modules())
def test_packages_stay_in_their_rooms(name: str) -> None:
    for package in {one.split(".")[0] for one in imports(modules()[name])} & set(ONLY_IN):
        assert room(name) in ONLY_IN[package], f"{name} imports {package}"


@pytest.mark.parametrize("name", modules())
def test_no_file_is_too_long(name: str) -> None:
    text = modules()[name].read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= LONGEST, f"{lines} lines"
    opening = " ".join((ast.get_docstring(ast.parse(text)) or "").split())
    assert lines <= LONG or "Long, since" in opening, f"{lines} lines and no reason (Long, since ...) in its docstring"


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(ast.parse(modules()[name].read_text(encoding="utf-8"))), "no docstring"


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


@pytest.mark.parametrize("module", ["hausa_asr.cli", "sweeps.run", "hausa_asr.settings.load", "sweeps.replay.__main__"])
def test_help_and_settings_do_not_wait_for_the_heavy_packages(module: str) -> None:
    heavy = ["torch", "transformers", "datasets", "ray", "mlflow", "optuna", "matplotlib"]
    done = python(
        f"import sys\nargv0 = sys.path[0]\nimport {module}\nloaded = [n for n in {heavy} if n in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    assert done.returncode == 0, done.stderr


def test_what_runs_before_ray_does_not_wait_for_torch() -> None:
    """A driver trains nothing: the seconds that torch and transformers take to import belong to the workers."""
    rooms = ["model.base_check", "dataset.from_settings", "tracking.tracker"]
    code = f"import sys\nfor name in {rooms}: __import__('hausa_asr.' + name)\n"
    code += "import sweeps.driver.closing, sweeps.sampling.warm_start\nassert 'torch' not in sys.modules"
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_one_word_per_thing() -> None:
    """Words of which readers could not say what they meant."""
    for name, path in modules().items():
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"\b(is|was|are|were|be) told\b", line), f"{name}: {line.strip()}"


def test_test_files_have_names_of_their_own() -> None:
    """Two of one name in two folders can't be collected together, which each alone does not show."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    twice = {one.name for one in files if sum(one.name == other.name for other in files) > 1}
    assert len(files) > 50 and not twice
