"""cluster/local/head.sh with a stand-in for Ray: on loopback, and with a token that only its user may read."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
RAY = """#!/usr/bin/env bash
if [ "$1" = get-auth-token ]; then mkdir -p ~/.ray; echo 0123 >~/.ray/auth_token; exit; fi
echo "$*"; env | grep ^RAY_
"""


def start(home: Path, *options: str, **more: str) -> list[str]:
    environment = {"PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(home), **more}
    command = ["bash", str(ROOT / "cluster/local/head.sh"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


def test_only_its_user_reaches_it(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ray").write_text(RAY)
    (tmp_path / "bin/ray").chmod(0o755)
    started, *variables = start(tmp_path, "--num-gpus", "4")
    assert started.startswith("start --head --block ") and started.endswith(" --num-gpus 4")
    assert "--node-ip-address 127.0.0.1" in started and "--dashboard-host 127.0.0.1" in started
    # Without the second, Ray 2.60 listens on all addresses of the machine whatever it is told.
    assert {"RAY_AUTH_MODE=token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"} <= set(variables)
    token = tmp_path / ".ray/auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    token.write_text("mine")
    token.chmod(0o644)
    start(tmp_path)
    assert token.read_text() == "mine", "a token that is there is kept"
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_token_of_the_environment_is_taken_and_none_written(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ray").write_text(RAY)
    (tmp_path / "bin/ray").chmod(0o755)
    assert "RAY_AUTH_TOKEN=abc" in start(tmp_path, RAY_AUTH_TOKEN="abc")
    assert not (tmp_path / ".ray").exists()
