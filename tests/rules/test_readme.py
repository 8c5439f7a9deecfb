"""The README tells the truth: its files exist, all rooms are on its map, its commands and settings are real."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLUSTER = (ROOT / "cluster/README.md").read_text(encoding="utf-8")


def test_every_room_is_on_the_map() -> None:
    """Rooms and top-level files are named, and what is named is there; the ground floor's files are one row."""
    the_map = README[README.index("## The map") : README.index("## Licence")]
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", the_map))
    for package in ("hausa_asr", "sweeps"):
        rooms = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
        assert rooms <= named, f"not on the README's map: {rooms - named}"
    for name in named - {"__init__.py"}:
        places = [ROOT / name, ROOT / "hausa_asr" / name, ROOT / "sweeps" / name]
        assert any(place.exists() for place in places), f"{name} is gone"


def test_it_is_short_enough_to_read() -> None:
    assert len(README.splitlines()) <= 165


def test_what_to_open_and_run_is_there() -> None:
    rows = re.findall(r"^\| [\w' -]+ \| `((?:sweeps|hausa_asr)/[\w/.]+)` \| (.+) \|$", README, re.M)
    assert len(rows) >= 5
    for file, commands in rows:
        assert (ROOT / file).exists(), file
        for folder in re.findall(r"tests/\w+", commands):
            assert (ROOT / folder).is_dir(), folder


def test_links_and_pictures_are_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README + CLUSTER):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_the_settings_shown_are_valid(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", README, re.S)
    assert block
    path = tmp_path / "my_sweep.yaml"
    path.write_text(block[1])
    config = load(path, environment={})
    assert isinstance(config, SweepConfig) and config.space["lr_peak"] and config.starting_points
    assert yaml.safe_load(block[1])["storage"] == config.storage


@pytest.mark.parametrize("text", [README, CLUSTER], ids=["README", "cluster"])
def test_commands_exist(text: str) -> None:
    commands = set(re.findall(r"hausa-asr ([a-z-]+)", text))
    known = {"prepare", "finetune", "best-model", "diagnose", "doctor", "lm", "suspects", "serve", "transcribe",
             "submit", "watch", "sweeps"}  # fmt: skip
    assert commands <= known
    options = set(re.findall(r"(?<=\s)--(?:config|set|resume)\b", text))
    helped = subprocess.run(
        [sys.executable, str(ROOT / "sweeps/run.py"), "--help"], capture_output=True, text=True, timeout=60
    ).stdout
    assert options
    assert all(option in helped for option in options)


def test_every_option_that_the_readme_gives_is_known() -> None:
    for command, rest in re.findall(r"^    (?:\.venv/bin/)?hausa-asr ([a-z-]+)(.*)$", README, re.M):
        helped = subprocess.run(
            [str(Path(sys.executable).with_name("hausa-asr")), command, "--help"],
            capture_output=True, text=True, timeout=60, env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
        ).stdout  # fmt: skip
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in helped, f"hausa-asr {command} {option}"


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^    )make ([a-z]+)", README, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
