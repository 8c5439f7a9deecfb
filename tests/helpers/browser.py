"""A real browser for the tests of pages: Chromium, if there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page with")


def page(url: str, folder: Path, *options: str) -> str:
    """What a browser has made of a page, as HTML.

    Args:
        url: the page's address.
        folder: an empty one for the browser's profile.
        options: more of its flags.
    """
    assert CHROMIUM
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader",
        f"--user-data-dir={folder}", "--window-size=1800,1600", "--virtual-time-budget=30000", *options, "--dump-dom",
        url,
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
