"""The page: a recording in, its text and its words with their times out. Called by `hausa-asr serve`.

Gradio makes page and server. The model is loaded once; recordings are transcribed one after another, so that many
visitors wait and do not fill the memory. What is uploaded is deleted after an hour.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.model.transcribe import Recognizer

_CLEAN_S, _KEPT_S = 600, 3600
"""How often old uploads are looked for, and the age from which one is deleted."""
_WAITING = 20
"""Visitors that may wait; more are asked to come back."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Limits:
    """The longest recording, in seconds, and the largest file, in megabytes."""

    seconds: float = 600.0
    mb: int = 100


def check_gradio() -> None:
    """Refuse early if gradio is not installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError(
            "The page needs gradio, which is not installed.",
            fix="Install it with `pip install 'hausa-asr-sweeps[serve]'`.",
        )


def serve(
    recognizer: Recognizer, title: str, host: str, port: int, limits: Limits, ready: Callable[[str], None]
) -> None:
    """Serve the page until the process is interrupted.

    Args:
        recognizer: the model.
        title: of the page.
        host, port: where to listen.
        limits: of what is taken.
        ready: called with the page's address, once it can be opened.

    Raises:
        UserError: the port is taken, or the host is none of this machine.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # and the fonts below are the system's: it asks no other server
    import gradio

    page = _page(recognizer, title, limits)
    page.queue(max_size=_WAITING, default_concurrency_limit=1)
    fonts = ["system-ui", "sans-serif"]
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=f"{limits.mb}mb", footer_links=[], ssr_mode=False,
            theme=gradio.themes.Default(font=fonts, font_mono=["monospace"]),
        )  # fmt: skip
    except OSError as error:
        raise UserError(
            "The page can't be served there: the port is taken, or the host is none of this machine.",
            where=f"{host}:{port}",
            fix="Give another --port, or --host.",
        ) from error
    ready(address)
    page.block_thread()


def _page(recognizer: Recognizer, title: str, limits: Limits) -> Any:
    import gradio

    def transcribed(file: str | None) -> tuple[str, list[list[object]]]:
        if not file:
            raise gradio.Error("Upload a recording, or record one, first.", print_exception=False)
        (found,) = recognizer.files([file], words=True, max_s=limits.seconds)
        if found.error is not None:
            raise gradio.Error(found.error, print_exception=False)
        words = [
            [one.text, round(one.start_s, 2), round(one.end_s, 2), round(one.confidence, 2)]
            for one in found.words or []
        ]
        return found.text or "(nothing is heard)", words

    about = f"Up to {limits.seconds / 60:g} minutes and {limits.mb} MB. Recordings are deleted after an hour."
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(_CLEAN_S, _KEPT_S)) as page:
        gradio.Markdown(f"# {title}\n\n{about}")
        recording = gradio.Audio(
            sources=["upload", "microphone"], type="filepath", label="Recording", buttons=["download"]
        )
        button = gradio.Button("Transcribe", variant="primary")
        text = gradio.Textbox(label="Text", lines=4, buttons=["copy"])
        words = gradio.Dataframe(
            headers=["word", "from, s", "to, s", "confidence"], label="Words", interactive=False, wrap=True
        )
        button.click(transcribed, recording, [text, words], api_name="transcribe")
    return page
