"""A Space runs by itself: its own copy of the code, its model, and no package that it does not ask for."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from hausa_asr.errors import UserError
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.export.space import check_space, write_space
from hausa_asr.export.write import export_checkpoint
from helpers.fine_tunes import save_checkpoint
from helpers.mlflow_server import free_port

CARD = Card("s", "t001", "demo", {}, {}, ErrorRates(0.5, 0.25))
ONLY = """
import runpy, sys
from pathlib import Path

for name in ("ray", "mlflow", "optuna", "datasets", "plotly", "sweeps", "torchaudio"):
    sys.modules[name] = None  # as if it were not installed
sys.path.insert(0, "")
import hausa_asr
assert Path(hausa_asr.__file__).parent.parent == Path.cwd(), hausa_asr.__file__
runpy.run_path("app.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, layer_norm_base: Path) -> Path:
    folder = tmp_path_factory.mktemp("space")
    return export_checkpoint(save_checkpoint(folder / "trial", layer_norm_base), folder / "model", CARD)


@pytest.mark.slow
def test_it_serves_its_page_with_its_own_code_and_requirements(model: Path, tmp_path: Path) -> None:
    space = tmp_path / "space"
    check_space(space, model, overwrite=False)
    write_space(model, space)
    asked = (space / "requirements.txt").read_text().split()
    assert any(re.match("gradio[<>=]", one) for one in asked) and not any(
        re.match("ray|mlflow|optuna", one) for one in asked
    )
    assert re.search(r"^sdk: gradio$", (space / "README.md").read_text(), re.M)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", ONLY], cwd=space, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "GRADIO_SERVER_PORT": str(port), "PYTHONPATH": ""},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"page   http://127.0.0.1:{port}/\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert "Hausa speech to text" in answer.read().decode()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_nothing_else_is_overwritten(model: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/app.py").write_text("print()")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="not one that was written here"):
            check_space(tmp_path / "mine", model, overwrite)
    write_space(model, tmp_path / "space")
    with pytest.raises(UserError, match="exists already"):
        check_space(tmp_path / "space", model, overwrite=False)
    check_space(tmp_path / "space", model, overwrite=True)
    write_space(model, tmp_path / "space")
    (tmp_path / "space/.git").mkdir()
    with pytest.raises(UserError, match=r"also holds \.git"):
        check_space(tmp_path / "space", model, overwrite=True)
    with pytest.raises(UserError, match="can be written there"):
        check_space(tmp_path / "mine/app.py/space", model, overwrite=False)
    for inside in (model, model / "space", model.parent):
        with pytest.raises(UserError, match="two folders"):
            check_space(inside, model, overwrite=True)
