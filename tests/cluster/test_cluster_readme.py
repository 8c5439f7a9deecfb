"""cluster/README.md tells the truth: its files are there, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "cluster/README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^    (?:\S+=\S+ )*((?:hausa-asr|python|cluster/|ray|kubectl|sky|sbatch).*(?:\\\n.*)*)$", README, re.M
)


def test_links_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", README, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        file, _, heading = target.partition("#")
        assert target.startswith("http") or (ROOT / "cluster" / file).exists(), target
        assert file or heading in headings, target


def test_files_in_commands_are_there() -> None:
    named = {file for command in COMMANDS for file in re.findall(r"(?:^|\s)(cluster/[\w/.]+|sweeps/[\w/.]+)", command)}
    assert len(named) >= 6
    for file in named:
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("command", sorted({c.split()[1] for c in COMMANDS if c.startswith("hausa-asr")}))
def test_our_commands_and_their_options_exist(command: str) -> None:
    helped = subprocess.run(
        [str(Path(sys.executable).with_name("hausa-asr")), command, "--help"],
        capture_output=True, text=True, timeout=60, env={"COLUMNS": "200", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert helped.returncode == 0
    for line in (c for c in COMMANDS if c.startswith(f"hausa-asr {command}")):
        for option in re.findall(r"(?<=\s)--[a-z-]+", line):
            assert option in helped.stdout, f"hausa-asr {command} {option}"


def test_settings_that_it_names_are_valid() -> None:
    for section, value in re.findall(r"`(resources|budget): (\{[^`]*\})`", README):
        load(None, [f"{section}={value}"], environment={})
    named = set(re.findall(r"`(resources|model|cluster|mlflow)\.(\w+)`", README))
    assert named
    for section, name in named:
        assert name in type(getattr(SweepConfig(), section)).model_fields, f"{section}.{name}"


def test_every_template_is_in_the_table_and_has_a_section() -> None:
    for folder in (path.name for path in (ROOT / "cluster").iterdir() if path.is_dir() and path.name != "__pycache__"):
        assert f"{folder}/" in README, f"{folder}/ is not in the README"
