"""What SECURITY.md claims of the code: nothing unpickles storage, starts a shell or runs Python of others."""

from __future__ import annotations

import ast
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hausa_asr.errors import UserError
from hausa_asr.model.wav2vec2 import new_model
from hausa_asr.settings.sweep import ClusterSettings
from hausa_asr.training.checkpoint import TRAINING, Checkpoint
from hausa_asr.training.finetune import FinetuneConfig
from sweeps.on_ray.cluster import prepare_environment

ROOT = Path(__file__).parents[2]
FILES = [
    path for room in ("hausa_asr", "sweeps", "benchmarks", "cluster") for path in sorted((ROOT / room).rglob("*.py"))
]
FROM_THEIR_OWN_CHILD = {"hausa_asr/dataset/decode_pool.py", "hausa_asr/dataset/decoder.py"}
"""They unpickle what comes through a pipe between a process and its child."""
UNPICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNPACKERS = {"extractall", "extract", "unpack_archive"}


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Name each thing in a module that could run what it is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value == "0.0.0.0":
            yield "listens on all addresses"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        room, _, name = called.rpartition(".")
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load" and given.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if room in UNPICKLERS and name in ("load", "loads", "open"):
            yield "unpickles"
        if given.get("allow_pickle", "False") != "False" or given.get("trust_remote_code", "False") != "False":
            yield "allow_pickle or trust_remote_code"
        if given.get("shell", "False") != "False" or called in ("os.system", "os.popen", "subprocess.getoutput"):
            yield "starts a shell"
        if called in ("yaml.unsafe_load", "yaml.full_load") or (
            called == "yaml.load" and "SafeLoader" not in ast.unparse(node)
        ):
            yield "YAML that may hold code"
        if called in ("eval", "exec", "tempfile.mktemp"):
            yield called
        if name in UNPACKERS:
            yield "unpacks without looking"


def test_no_code_of_ours_runs_what_it_is_given() -> None:
    found = {
        (str(path.relative_to(ROOT)), what)
        for path in FILES
        for what in unsafe(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == {(file, "unpickles") for file in FROM_THEIR_OWN_CHILD}


@pytest.mark.parametrize("text", [
    "torch.load(f)", "torch.load(f, weights_only=False)", "pickle.loads(b)", "joblib.load(f)", "eval(t)",
    "np.load(f, allow_pickle=True)", "AutoModel.from_pretrained(n, trust_remote_code=True)", "os.system(c)",
    "subprocess.run(c, shell=True)", "yaml.load(t, Loader=yaml.Loader)", "yaml.unsafe_load(t)", "tar.extractall(d)",
    "serve(host='0.0.0.0')",
])  # fmt: skip
def test_the_scan_sees(text: str) -> None:
    assert list(unsafe(ast.parse(text)))


class Planted:
    """Pickled code: what unpickles it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.mark), "w")


def test_code_planted_in_a_training_state_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    torch.save({"step": Planted(mark)}, tmp_path / TRAINING)
    with pytest.raises(pickle.UnpicklingError):
        Checkpoint(tmp_path, 1, {}).training_state()
    assert not mark.exists()
    torch.load(tmp_path / TRAINING, weights_only=False)
    assert mark.exists(), "the plant is no plant"


def test_code_planted_in_a_base_checkpoint_does_not_run(layer_norm_base: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    base = tmp_path / "base"
    base.mkdir()
    for file in layer_norm_base.iterdir():
        if file.suffix != ".safetensors":
            (base / file.name).write_bytes(file.read_bytes())
    torch.save({"wav2vec2.masked_spec_embed": Planted(mark)}, base / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        new_model(str(base), FinetuneConfig())
    assert not mark.exists()


def test_a_local_ray_gets_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    tokens = set()
    for _ in range(2):
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"):
            monkeypatch.setenv(name, "")
        prepare_environment(ClusterSettings())
        assert os.environ["RAY_AUTH_MODE"] == "token"
        tokens.add(os.environ["RAY_AUTH_TOKEN"])
    assert len(tokens) == 2 and all(re.fullmatch(r"[0-9a-f]{64}", token) for token in tokens)


def test_what_security_md_names_is_there() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|hausa_asr|sweeps|cluster)/[\w/.]+)`", text))
    assert len(named) > 12
    assert not [name for name in named if not (ROOT / name).exists()]
