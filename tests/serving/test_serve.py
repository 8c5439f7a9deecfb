"""The page of `hausa-asr serve`, in a real browser: a recording is uploaded, and its text is there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hausa_asr.cli import main
from hausa_asr.errors import UserError
from hausa_asr.export.model_card import Card, ErrorRates
from hausa_asr.export.write import export_checkpoint
from hausa_asr.model.transcribe import transcribe
from hausa_asr.serving import page as served
from hausa_asr.utterance import SAMPLE_RATE
from helpers.browser import Tab, needs_browser
from helpers.fine_tunes import save_checkpoint
from helpers.mlflow_server import free_port

CARD = Card("s", "t001", "demo", {}, {}, ErrorRates(0.5, 0.25))
TEXT = "document.querySelector('textarea') && document.querySelector('textarea').value"
CELLS = "[data-testid^=cell], td, [role=gridcell]"
CLICK = "[...document.querySelectorAll('button')].find(one => one.innerText.trim() == 'Transcribe').click()"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, layer_norm_base: Path) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    return export_checkpoint(save_checkpoint(folder / "trial", layer_norm_base), folder / "model", CARD)


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    port = free_port()
    command = [str(Path(sys.executable).with_name("hausa-asr")), "serve", str(model), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--max-minutes", "0.1"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == f"page   http://127.0.0.1:{port}/\n"
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGTERM)  # so that it removes what was uploaded
        try:
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def noise(folder: Path, seconds: float) -> Path:
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE)).astype(np.float32)
    soundfile.write(folder / f"{seconds:g}.wav", samples, SAMPLE_RATE)
    return folder / f"{seconds:g}.wav"


@needs_browser
def test_what_is_uploaded_is_transcribed_and_what_can_not_be_is_refused(
    address: str, model: Path, tmp_path: Path
) -> None:
    short, long = noise(tmp_path, 2), noise(tmp_path, 8)
    wanted = transcribe(short, model=model)
    assert wanted

    async def visit() -> None:
        async with Tab(address, tmp_path / "first") as tab:
            await tab.wait_for("document.querySelector('input[type=file]') && true")
            await tab.value(CLICK)
            await tab.wait_for("document.body.innerText.includes('Upload a recording')")
            await tab.upload("input[type=file]", short)
            await tab.wait_for("document.querySelector('audio') && true")
            await tab.value(CLICK)
            assert await tab.wait_for(TEXT) == wanted
            for word in wanted.split():
                cells = f"[...document.querySelectorAll('{CELLS}')].map(one => one.innerText.trim())"
                await tab.wait_for(f"{cells}.includes('{word}')")
            asked = await tab.value("performance.getEntriesByType('resource').map(one => one.name)")
            others = [one for one in asked if not one.startswith((address, "data:", "blob:"))]
            assert not [one for one in others if "iframe-resizer" not in one], "gradio's own, for pages inside others"
        async with Tab(address, tmp_path / "second") as tab:
            await tab.wait_for("document.querySelector('input[type=file]') && true")
            await tab.upload("input[type=file]", long)
            await tab.wait_for("document.querySelector('audio') && true")
            await tab.value(CLICK)
            await tab.wait_for("document.body.innerText.includes('oo long')")
            assert not await tab.value(TEXT)

    asyncio.run(visit())


def test_nothing_goes_past_the_queue(address: str) -> None:
    content = json.dumps({"data": [None]}).encode()
    kind = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}gradio_api/run/transcribe", content, kind)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=20)


def test_what_was_uploaded_is_gone_with_the_server(model: Path) -> None:
    def uploads() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("hausa-asr-serve-*"))

    before = uploads()
    command = [str(Path(sys.executable).with_name("hausa-asr")), "serve", str(model), "--port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None and process.stdout.readline().startswith("page")
        (mine,) = uploads() - before
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0 and not mine.exists()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_it_asks_no_other_server_for_its_looks(address: str) -> None:
    with urllib.request.urlopen(address, timeout=20) as answer:
        html = answer.read().decode()
    assert "fonts.googleapis.com" not in html and "Hausa speech to text" in html


def test_a_port_that_is_taken_and_other_faults_are_said_in_a_line(
    address: str, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = address.rstrip("/").rpartition(":")[2]
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(model), "--port", port])
    assert ended.value.code == 2 and "the port is taken" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(model.parent / "none")])
    assert ended.value.code == 2 and "no such model folder" in capsys.readouterr().err
    monkeypatch.setattr(served.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs gradio"):
        served.check_gradio()
