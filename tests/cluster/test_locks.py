"""The locks agree with pyproject.toml and with each other, name no mirror, and have a hash for everything."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "cluster/locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("demo", "lm", "s3", "gs", "aws")
FROM_PYTORCH = {"torch", "torchaudio"}
"""Their wheels for CPUs are on an index of their own, and in the Containerfile."""


def locked(path: Path) -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)", path.read_text(), re.M)
    }


ALL = {name: locked(LOCKS / f"{name}.txt") for name in ("cpu", "cuda", "dev")} | {
    "mlflow": locked(ROOT / "cluster/mlflow/requirements.txt")
}


@pytest.mark.parametrize("lock", ["cpu", "cuda", "dev"])
def test_each_requirement_is_locked_within_its_range(lock: str) -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [
        *PROJECT["dependencies"],
        *(one for extra in (extras if lock == "dev" else EXTRAS) for one in extras[extra]),
    ]
    for text in wanted:
        one = Requirement(text)
        if one.marker and not one.marker.evaluate({"python_version": "3.11", "python_full_version": "3.11.9"}):
            continue
        name = canonicalize_name(one.name)
        if lock != "cuda" and name in FROM_PYTORCH:
            assert name not in ALL[lock]
            continue
        assert name in ALL[lock], f"{text} is not in {lock}.txt: run cluster/locks/compile.sh"
        assert one.specifier.contains(ALL[lock][name]), f"{text}, but {lock}.txt has {ALL[lock][name]}"


def test_locks_agree_with_each_other() -> None:
    for name, version in (ALL["cpu"] | ALL["mlflow"] | ALL["dev"]).items():
        assert ALL["cuda"].get(name, version) == version
    assert ALL["mlflow"]["mlflow"] == ALL["cuda"]["mlflow"], "a client newer than its server may ask for what it lacks"
    for name in set(ALL["cuda"]) - set(ALL["cpu"]):
        assert re.match(r"torch|torchaudio|triton|nvidia-|cuda-", name), name
    left = [name for name in ALL["cpu"] if re.match(r"triton|cuda-|nvidia-(?!ml-py)", name)]
    assert not left, f"of CUDA, in cpu.txt: {left}; name them in no_cuda.txt"


@pytest.mark.parametrize("path", [LOCKS / "cpu.txt", LOCKS / "cuda.txt", ROOT / "cluster/mlflow/requirements.txt"],
                         ids=lambda path: path.name)  # fmt: skip
def test_everything_has_its_hashes_and_nothing_names_a_mirror(path: Path) -> None:
    text = path.read_text()
    assert "cluster/locks/compile.sh" in text[:200]
    for entry in re.split(r"\n(?=[a-zA-Z])", text.partition("compile.sh\n")[2].strip()):
        assert re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==\S+ \\\n( +--hash=sha256:[0-9a-f]{64}( \\\n|\s*$))+", entry), (
            entry[:80]
        )
    assert not re.search(r"--(extra-)?index-url|--find-links|://| @ ", text)
