"""Known pitfalls of fine-tuning wav2vec 2.0 with CTC that no other test holds; docs/pitfalls.md lists all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torchaudio
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

from hausa_asr.decoding.greedy import greedy
from hausa_asr.errors import UserError
from hausa_asr.model.device import set_up
from hausa_asr.model.evaluate import evaluate
from hausa_asr.model.forward import ctc_logits, ctc_losses
from hausa_asr.model.wav2vec2 import load_model, new_model
from hausa_asr.recipe import FinetuneConfig, order
from hausa_asr.text import PAD, VOCAB, encode
from hausa_asr.training import one_update
from hausa_asr.training.masking import Masking, span_mask
from helpers.speech import ToneSplit

ROOT = Path(__file__).parents[2]
POSITIONS = "encoder.pos_conv_embed.conv"


def changed_base(base: Path, out: Path, weights: dict[str, torch.Tensor] | None = None, **settings: object) -> Path:
    """A copy of a base checkpoint with other weights or other settings."""
    config = Wav2Vec2Config.from_pretrained(base)
    for name, value in settings.items():
        setattr(config, name, value)
    config.save_pretrained(out)
    save_file(weights or load_file(base / "model.safetensors"), out / "model.safetensors", metadata={"format": "pt"})
    (out / "preprocessor_config.json").write_text((base / "preprocessor_config.json").read_text())
    return out


def test_torchaudio_is_of_torchs_own_release() -> None:
    assert torchaudio.__version__.split(".")[:2] == torch.__version__.split(".")[:2]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    minor = ".".join(torch.__version__.split(".")[:2])
    assert f'"torch=={minor}.*"' in project
    assert f'"torchaudio=={minor}.*"' in project


def test_the_old_names_of_weight_norm_are_understood(layer_norm_base: Path, tmp_path: Path) -> None:
    weights = load_file(layer_norm_base / "model.safetensors")
    new = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    for old, name in new.items():
        weights[f"{POSITIONS}.{old}"] = weights.pop(f"{POSITIONS}.{name}")
    model, _ = new_model(str(changed_base(layer_norm_base, tmp_path, weights)), FinetuneConfig())
    whole, _ = new_model(str(layer_norm_base), FinetuneConfig())
    for name, weight in whole.named_parameters():
        assert weight.equal(model.get_parameter(name)), name


def test_one_missing_weight_of_the_encoder_is_refused_and_named(layer_norm_base: Path, tmp_path: Path) -> None:
    weights = load_file(layer_norm_base / "model.safetensors")
    lost = next(name for name in sorted(weights) if name.startswith(POSITIONS))
    del weights[lost]
    with pytest.raises(UserError, match=r"lacks 1 weights.*pos_conv_embed"):
        new_model(str(changed_base(layer_norm_base, tmp_path, weights)), FinetuneConfig())


def test_a_base_that_was_saved_without_masks_can_be_masked(layer_norm_base: Path, tmp_path: Path) -> None:
    base = changed_base(layer_norm_base, tmp_path, mask_time_prob=0.0, mask_feature_prob=0.0)
    weights = {
        name: weight for name, weight in load_file(base / "model.safetensors").items() if "spec_embed" not in name
    }
    model, _ = new_model(str(changed_base(base, tmp_path, weights)), FinetuneConfig())
    features, frames = torch.randn(1, 30, 16), torch.tensor([30])
    mask = torch.arange(30)[None] < 10
    assert not ctc_logits(model.eval(), features, frames, mask).equal(ctc_logits(model, features, frames))


def test_masks_come_from_no_global_source_of_chance() -> None:
    masking = Masking(0.3, 5, 0.2, 4, seed=7)
    drawn = []
    for seed in (1, 2):
        np.random.seed(seed)
        torch.manual_seed(seed)
        drawn.append(masking.draw("an utterance", 0, 100, 32))
    assert (drawn[0][0] == drawn[1][0]).all()
    assert (drawn[0][1] == drawn[1][1]).all()


def test_a_feature_mask_wider_than_the_model_is_shortened() -> None:
    rng = np.random.default_rng(0)
    masks = [span_mask(rng, 32, 0.25, 64, min_spans=0) for _ in range(200)]
    assert {mask.shape for mask in masks} == {(32,)}
    assert np.mean(masks) == pytest.approx(0.25, abs=0.1)


def test_evaluation_has_no_dropout_no_layerdrop_and_no_masks(layer_norm_base: Path) -> None:
    model, processor = new_model(
        str(layer_norm_base), FinetuneConfig(hidden_dropout=0.5, layerdrop=0.5, final_dropout=0.5)
    )
    split = ToneSplit(3, 0)
    losses = {evaluate(mode, processor, split).loss for mode in (model.train(), model.train(), model.eval())}
    assert len(losses) == 1


def test_whoever_reads_the_settings_computes_the_same_loss(layer_norm_base: Path, tmp_path: Path) -> None:
    base = changed_base(layer_norm_base, tmp_path / "base", ctc_loss_reduction="sum", ctc_zero_infinity=False)
    model, processor = new_model(str(base), FinetuneConfig())
    model.save_pretrained(tmp_path / "model")
    config: Any = Wav2Vec2Config.from_pretrained(tmp_path / "model")
    assert (config.ctc_loss_reduction, config.ctc_zero_infinity) == ("mean", True)
    assert config.pad_token_id == processor.tokenizer.pad_token_id == VOCAB[PAD]
    assert config.vocab_size == len(processor.tokenizer) == len(VOCAB)


def test_the_loss_is_float32_whatever_the_logits_are() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (8 * torch.randn(2, 60, len(VOCAB), generator=generator)).bfloat16()
    labels = torch.tensor(encode("ɗan ƙasa") + encode("ya zo"))
    given = torch.tensor([60, 40]), labels, torch.tensor([8, 5])
    losses = ctc_losses(logits, *given)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), ctc_losses(logits.double(), *given).double(), rtol=1e-5, atol=0)


def test_a_gpu_never_plans_attention_or_convolutions_for_each_shape() -> None:
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    before = cuda.cudnn_sdp_enabled(), cudnn.benchmark, torch.get_float32_matmul_precision()
    try:
        cuda.enable_cudnn_sdp(True)
        cudnn.benchmark = True
        set_up(torch.device("cuda"))
        assert not cuda.cudnn_sdp_enabled()
        assert cuda.flash_sdp_enabled() and cuda.mem_efficient_sdp_enabled()
        assert not cudnn.benchmark
    finally:
        cuda.enable_cudnn_sdp(before[0])
        cudnn.benchmark = before[1]
        torch.set_float32_matmul_precision(before[2])


@torch.inference_mode()
def test_attention_is_pytorchs_own_and_equals_the_plain_one(layer_norm_base: Path, tmp_path: Path) -> None:
    model, processor = new_model(str(layer_norm_base), FinetuneConfig())
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, _ = load_model(tmp_path)
    assert model.config._attn_implementation == loaded.config._attn_implementation == "sdpa"
    plain: Any = Wav2Vec2ForCTC.from_pretrained(tmp_path, attn_implementation="eager").eval()
    samples = torch.randn(2, 8000)
    mask = (torch.arange(8000) < torch.tensor([[8000], [5000]])).long()
    torch.testing.assert_close(
        loaded(samples, attention_mask=mask).logits[0], plain(samples, attention_mask=mask).logits[0]
    )


def test_double_letters_are_kept_in_references_and_read_back(layer_norm_base: Path) -> None:
    text = "hannu da allah"

    class Doubled(ToneSplit):
        texts = (text,)

    model, processor = new_model(str(layer_norm_base), FinetuneConfig())
    assert set(evaluate(model, processor, Doubled(2, 0)).references) == {text}
    path = [VOCAB[PAD]]
    for label in encode(text):
        path += [label, label, VOCAB[PAD]]
    logits = torch.nn.functional.one_hot(torch.tensor([path]), len(VOCAB)).float()
    assert greedy(logits, torch.tensor([len(path)])) == [text]


def test_on_the_plateau_cer_and_the_loss_tell_the_best() -> None:
    plateau = [(1.0, 0.99, 2.9), (1.0, 0.99, 3.0), (1.0, 1.0, 2.8)]
    scores = [dict(zip(("wer", "cer", "loss"), one, strict=True)) for one in (*plateau, (0.99, 1.2, 3.5))]
    assert sorted(scores, key=order) == [scores[3], scores[0], scores[1], scores[2]]


WAIT = timedelta(seconds=60)


def summed(rank: int, store: str) -> list[list[float]]:
    """Two weights and a loss after the ranks have added up; rank 1 has dropped a layer and has no utterance."""
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    whole, one_update._BUCKET = one_update._BUCKET, 1  # each gradient is a message of its own
    try:
        kept, dropped = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))
        if rank == 0:
            kept.grad, dropped.grad = torch.tensor([1.0, 2.0]), torch.ones(3)
        loss = one_update._sum_over_ranks([kept, dropped], torch.tensor(0.5 if rank == 0 else 0.0), 2)
        assert kept.grad is not None and dropped.grad is not None
        return [kept.grad.tolist(), dropped.grad.tolist(), [loss.item()]]
    finally:
        one_update._BUCKET = whole
        dist.destroy_process_group()


def test_ranks_that_dropped_a_layer_or_have_no_utterance_neither_wait_nor_fail(tmp_path: Path) -> None:
    code = f"from test_pitfalls import summed; print(summed(1, {str(tmp_path / 'store')!r}))"
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)))
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        here = summed(0, str(tmp_path / "store"))
        there, _ = other.communicate(timeout=60)
    finally:
        other.kill()
    assert here == [[1.0, 2.0], [1.0, 1.0, 1.0], [0.5]]
    assert there.strip() == str(here)
