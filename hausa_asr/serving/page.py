"""The page: a recording in, its text and its words with their times out. Called by `hausa-asr serve`.

Gradio makes page and server. The model is loaded once; recordings are transcribed one after another, so that many
visitors wait and do not fill the memory. What is uploaded goes to a folder of its own that is gone with the server.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hausa_asr.errors import UserError
from hausa_asr.model.recognizer import Recognizer

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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what uploads it has goes with it then, too
    with tempfile.TemporaryDirectory(prefix="hausa-asr-serve-") as uploads:
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",  # the next visitor at this browser would read what was said
            "GRADIO_TEMP_DIR": uploads,
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost,::1"])),
        }
        with suppress(KeyboardInterrupt):
            _serve(_page(recognizer, title, limits), f"[{host}]" if ":" in host else host, port, limits, ready)


def _serve(page: Any, host: str, port: int, limits: Limits, ready: Callable[[str], None]) -> None:
    import gradio

    # Without the open API nothing gets past the queue, and no address is fetched in place of an upload.
    page.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    fonts = ["system-ui", "sans-serif"]  # and not from another server
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=f"{limits.mb}mb", footer_links=[], ssr_mode=False, enable_monitoring=False,
            theme=gradio.themes.Default(font=fonts, font_mono=["monospace"]),
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(
            "The page can't be served there: the port is taken, or the host is not an address of this machine.",
            where=f"{host}:{port}",
            fix="Give another --port, or --host.",
        ) from error
    ready(address)
    try:
        while True:
            time.sleep(3600)
    finally:
        page.close(verbose=False)


def _page(recognizer: Recognizer, title: str, limits: Limits) -> Any:
    import gradio

    def transcribed(file: str | None) -> tuple[str, list[list[object]]]:
        if not file:
            raise gradio.Error("Upload a recording, or record one, first.", print_exception=False)
        (found,) = recognizer.files([file], words=True, max_s=limits.seconds)
        if found.error is not None:
            raise gradio.Error(_reason(found.error), print_exception=False)
        words = [
            [one.text, round(one.start_s, 2), round(one.end_s, 2), round(one.confidence, 2)]
            for one in found.words or []
        ]
        return found.text or "(no speech recognised)", words

    about = f"Up to {limits.seconds / 60:g} minutes and {limits.mb} MB. Recordings are deleted within two hours."
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
        button.click(transcribed, recording, [text, words], api_name="transcribe", api_visibility="private")
    return page


def _reason(error: str) -> str:
    """Why a recording was refused, without what a decoder of this machine said."""
    if error.startswith("unreadable"):
        return "This is not a recording that can be read."
    return f"{error[:1].upper()}{error[1:]}."
