"""start_or_resume.py: which call of sweeps/run.py it becomes, and settings that arrive after it has started."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "cluster"))
try:
    from start_or_resume import command  # type: ignore[import-not-found]
finally:
    sys.path.pop(0)

RUN = str(ROOT / "sweeps/run.py")


def test_a_sweep_in_a_store_is_found_too(tmp_path: Path) -> None:
    import fsspec

    given = ["tiny", "--config", "a.yaml", "--set", "search.trials=3"]
    for storage in (str(tmp_path), f"file://{tmp_path}", "memory://bucket/runs/"):
        assert command(given, storage) == [RUN, *given[1:], "--set", "name=tiny"]
        with fsspec.open(f"{storage.rstrip('/')}/tiny/sweep.yaml", "w", auto_mkdir=True) as file:
            file.write("name: tiny")
        assert command(given, storage) == [RUN, "--resume", "tiny", "--set", "search.trials=3"]
        (tmp_path / "tiny/sweep.yaml").unlink(missing_ok=True)


def test_settings_that_arrive_later_are_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As those of a second sweep do: a ConfigMap reaches a running head within two minutes."""
    file = tmp_path / "my_sweep.yaml"
    given = ["my_sweep", "--config", str(file), "--wait-for-config-s"]
    arrival = threading.Timer(0.5, file.touch)
    arrival.start()
    assert command([*given, "60"], str(tmp_path)) == [RUN, "--config", str(file), "--set", "name=my_sweep"]
    assert file.exists() and f"for {file}" in capsys.readouterr().out
    file.unlink()
    before = time.monotonic()
    assert command([*given, "0.1"], str(tmp_path))[1:3] == ["--config", str(file)], "the sweep itself says what lacks"
    (tmp_path / "my_sweep").mkdir()
    (tmp_path / "my_sweep/sweep.yaml").touch()
    assert command([*given, "60"], str(tmp_path)) == [RUN, "--resume", "my_sweep"], "it has its settings"
    assert time.monotonic() - before < 30


@pytest.mark.parametrize(("arguments", "storage", "lacks"), [
    (["my_sweep"], "runs", "--config"), ([], "runs", "name"),
    (["my_sweep", "--config", "a.yaml", "--wait-for-config-s"], "runs", "--wait-for-config-s"),
    (["my_sweep", "--config", "a.yaml"], "", "HAUSA_ASR_STORAGE"),
], ids=["settings", "name", "seconds", "storage"])  # fmt: skip
def test_what_lacks_is_named(
    arguments: list[str], storage: str, lacks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command(arguments, storage)
    assert ended.value.code == 2 and lacks in capsys.readouterr().err.splitlines()[-1]
