"""A real browser for the tests of pages: Chromium, if there is one."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
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


class Tab:
    """A page that is open in a browser: what a person does there, by Chromium's own protocol.

    Args:
        url: the page's address.
        folder: an empty one for the browser's profile.
        size: of the window, in pixels.
    """

    def __init__(self, url: str, folder: Path, size: str = "1200,1000") -> None:
        self._url, self._folder, self._size, self._sent = url, folder, size, 0

    async def __aenter__(self) -> Tab:
        assert CHROMIUM
        command = [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader",
            "--remote-debugging-port=0", f"--user-data-dir={self._folder}", f"--window-size={self._size}",
            "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._session = aiohttp.ClientSession()
        try:
            async with self._session.get(f"http://127.0.0.1:{await self._port()}/json") as answer:
                pages = await answer.json()
            address = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
            self._socket = await self._session.ws_connect(address, max_msg_size=0)
            await self.send("Page.navigate", url=self._url)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _port(self) -> str:
        file = self._folder / "DevToolsActivePort"
        for _ in range(300):
            if file.is_file() and len(found := file.read_text().split()) == 2:
                return found[0]
            await asyncio.sleep(0.1)
        raise AssertionError("the browser did not start")

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    async def send(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._sent += 1
        await self._socket.send_json({"id": self._sent, "method": method, "params": values})
        while True:
            said = await self._socket.receive_json(timeout=60)
            if said.get("id") == self._sent:
                assert "error" not in said, said
                return dict(said["result"])

    async def value(self, script: str) -> Any:
        """What a script of the page gives."""
        found = await self.send("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def wait_for(self, script: str, seconds: float = 60) -> Any:
        """Wait until a script of the page gives something."""
        for _ in range(int(seconds * 5)):
            if found := await self.value(script):
                return found
            await asyncio.sleep(0.2)
        raise AssertionError(f"not in {seconds} s: {script}\n{await self.value('document.body.innerText')}")

    async def upload(self, selector: str, file: Path) -> None:
        """Choose a file in an input of the page."""
        tree = await self.send("DOM.getDocument", depth=-1)
        node = await self.send("DOM.querySelector", nodeId=tree["root"]["nodeId"], selector=selector)
        await self.send("DOM.setFileInputFiles", files=[str(file)], nodeId=node["nodeId"])

    async def picture(self, file: Path) -> None:
        """Write a picture of the page."""
        shot = await self.send("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(shot["data"]))
