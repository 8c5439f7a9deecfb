"""docs/my_corpus.md works as written: its commands, options, settings and reasons exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from hausa_asr import cli
from hausa_asr.errors import UserError
from hausa_asr.settings.data import HEEDED
from hausa_asr.settings.load import load
from hausa_asr.settings.sweep import SweepConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/my_corpus.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    hausa-asr (.+)$", PAGE, re.M)
SETTINGS = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SweepConfig] = []

    def stop(config: SweepConfig, *_: Any, **__: Any) -> None:
        seen.append(config)
        raise UserError("enough")

    monkeypatch.setattr(cli, "_prepared", stop)
    monkeypatch.setattr("hausa_asr.one_recipe.run_trial", stop)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_sweep.yaml").write_text(SETTINGS[0])
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(command))
    assert ended.value.code == 2
    assert seen, f"hausa-asr {command} was refused before it began"


@pytest.mark.parametrize("settings", SETTINGS)
def test_all_settings_are_valid(settings: str, tmp_path: Path) -> None:
    (tmp_path / "my_sweep.yaml").write_text(settings)
    assert load(tmp_path / "my_sweep.yaml", environment={}).data.corpora


def test_every_corpus_and_every_setting_named_is_real() -> None:
    text = "\n".join([*COMMANDS, *SETTINGS])
    assert {kind for kind in HEEDED if kind in text} == set(HEEDED) - {"demo"}
    for name in re.findall(r"`data\.(\w+)", PAGE):
        assert name in type(load(None, environment={}).data).model_fields, name
    assert "hausa_text" not in PAGE


def test_every_reason_is_one_that_a_preparation_gives() -> None:
    table = PAGE[PAGE.index("| reason |") : PAGE.index("A few refusals")]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hausa_asr").rglob("*.py"))
    reasons = {reason for row in re.findall(r"^\| (`.*?) \|", table, re.M) for reason in re.findall(r"`(.*?)`", row)}
    assert len(reasons) > 10
    for reason in reasons:
        assert f'"{reason}"' in code or re.fullmatch(r"in \w+ too", reason), reason


def test_the_drivers_are_optional_parts_of_this_package() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for part in re.findall(r"hausa-asr-sweeps\[(\w+)\]", PAGE):
        assert re.search(rf"^{part} = \[", project, re.M), part
