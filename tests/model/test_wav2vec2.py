"""Real loading code on real checkpoint folders: both norms, new heads, what is refused, and our forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, Wav2Vec2ForCTC, Wav2Vec2Model

from hausa_asr.errors import UserError
from hausa_asr.model import wav2vec2
from hausa_asr.model.batch import collate
from hausa_asr.model.evaluate import evaluate, transcribe_samples
from hausa_asr.model.forward import ctc_logits, ctc_losses, encode_audio, frame_lengths
from hausa_asr.model.wav2vec2 import load_model, new_model
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.text import UNK, VOCAB, encode, normalise
from helpers.speech import ToneSplit


def logits_of(model: Wav2Vec2ForCTC, batch) -> tuple[torch.Tensor, torch.Tensor]:
    features = encode_audio(model, batch.samples, batch.n_samples, frozen=True)
    return ctc_logits(model, features, batch.frames), batch.frames


def collated(model: Wav2Vec2ForCTC, examples: list, do_normalize: bool):
    return collate(examples, do_normalize, lambda n_samples: frame_lengths(model, n_samples))


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_new_model_has_the_bases_encoder_and_a_head_of_our_alphabet(
    norm: str, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(f"{norm}_norm_base")
    model, processor = new_model(str(base), FinetuneConfig(seed=1))
    assert model.lm_head.out_features == len(VOCAB) == len(processor.tokenizer)
    assert model.config.pad_token_id == processor.tokenizer.pad_token_id == VOCAB["<pad>"]
    pretrained = Wav2Vec2Model.from_pretrained(base)
    for name, weight in pretrained.named_parameters():
        assert weight.equal(model.wav2vec2.get_parameter(name)), name
    assert processor.feature_extractor.return_attention_mask == (norm == "layer")
    again, _ = new_model(str(base), FinetuneConfig(seed=1))
    other, _ = new_model(str(base), FinetuneConfig(seed=2))
    assert again.lm_head.weight.equal(model.lm_head.weight)
    assert not other.lm_head.weight.equal(model.lm_head.weight)


def test_a_head_for_another_alphabet_is_replaced(layer_norm_base: Path, tmp_path: Path) -> None:
    Wav2Vec2ForCTC.from_pretrained(layer_norm_base, vocab_size=50).save_pretrained(tmp_path)
    model, _ = new_model(str(tmp_path), FinetuneConfig(seed=1))
    assert model.lm_head.out_features == len(VOCAB)


def test_a_bases_own_head_of_the_same_size_is_replaced_too(layer_norm_base: Path, tmp_path: Path) -> None:
    old = Wav2Vec2ForCTC.from_pretrained(layer_norm_base, vocab_size=len(VOCAB))
    old.save_pretrained(tmp_path)
    model, _ = new_model(str(tmp_path), FinetuneConfig(seed=1))
    assert not model.lm_head.weight.equal(old.lm_head.weight)


@pytest.mark.parametrize("own", [True, False], ids=["the base has adapters", "the base has none"])
def test_adapters_start_anew_from_the_recipes_seed(own: bool, layer_norm_base: Path, tmp_path: Path) -> None:
    if own:
        Wav2Vec2ForCTC.from_pretrained(layer_norm_base, adapter_attn_dim=8).save_pretrained(tmp_path)
    base = str(tmp_path if own else layer_norm_base)
    models = [new_model(base, FinetuneConfig(seed=seed, adapter_dim=8))[0] for seed in (1, 1, 2)]
    wav2vec2._kept.clear()  # as on another rank, which reads the base itself
    models.append(new_model(base, FinetuneConfig(seed=1, adapter_dim=8))[0])
    first, again, other, on_another_rank = (
        {name: weight for name, weight in model.named_parameters() if "adapter_layer.linear" in name}
        for model in models
    )
    assert first
    for name, weight in first.items():
        assert weight.equal(again[name]) and weight.equal(on_another_rank[name])
        assert name.endswith("bias") or not weight.equal(other[name]), "two seeds must not share their adapters"


def test_our_tokenizer_is_the_processors(layer_norm_base: Path) -> None:
    _, processor = new_model(str(layer_norm_base), FinetuneConfig(seed=1))
    for text in ("Ɗan ƙasa, 'ya'yan Ƴan'uwa!", "sauƙaƙe harkar ma'aikaci", "hannu da allah"):
        clean = normalise(text)
        assert processor.tokenizer(clean).input_ids == encode(clean)
        assert processor.tokenizer.decode(encode(clean), group_tokens=False) == clean


def test_unknown_is_never_read_out(layer_norm_base: Path) -> None:
    model, _ = new_model(str(layer_norm_base), FinetuneConfig(seed=1))
    batch = collated(model, [ToneSplit(1, 0)[0]], True)
    assert logits_of(model.eval(), batch)[0].argmin(-1).unique().tolist() == [VOCAB[UNK]]


@pytest.mark.parametrize("norm", ["layer", "group"])
@torch.inference_mode()
def test_our_forward_pass_is_transformers_own(norm: str, request: pytest.FixtureRequest) -> None:
    model, _ = new_model(str(request.getfixturevalue(f"{norm}_norm_base")), FinetuneConfig(seed=1))
    model.eval()
    examples = [ToneSplit(3, 0)[i] for i in range(3)]
    batch = collated(model, examples, True)
    ours, frames = logits_of(model, batch)
    n_samples = torch.tensor([len(example.samples) for example in examples])
    mask = (torch.arange(batch.samples.shape[1]) < n_samples[:, None]).long()
    labels = torch.full((3, int(batch.label_lengths.max())), -100)
    for row, example in zip(labels, examples, strict=True):
        row[: len(example.labels)] = torch.from_numpy(example.labels)
    losses = ctc_losses(ours, frames, batch.labels, batch.label_lengths)
    if norm == "layer":
        theirs = model(batch.samples, attention_mask=mask, labels=labels)
        logits, loss = list(theirs.logits), theirs.loss
    else:  # with a group norm, transformers' own output depends on padding: each alone
        alone = [
            model(row[None, :length], labels=one[None])
            for row, length, one in zip(batch.samples, n_samples, labels, strict=True)
        ]
        logits, loss = [one.logits[0] for one in alone], torch.stack([one.loss for one in alone]).mean()
    for one, other, length in zip(ours, logits, frames, strict=True):
        torch.testing.assert_close(one[:length], other[:length])
    torch.testing.assert_close(losses.mean(), loss)


@pytest.mark.parametrize("norm", ["layer", "group"])
@torch.inference_mode()
def test_padding_changes_nothing(norm: str, request: pytest.FixtureRequest) -> None:
    model, _ = new_model(str(request.getfixturevalue(f"{norm}_norm_base")), FinetuneConfig(seed=1))
    model.eval()
    examples = [ToneSplit(4, 0)[i] for i in range(4)]
    together, frames = logits_of(model, collated(model, examples, True))
    for index, example in enumerate(examples):
        alone, _ = logits_of(model, collated(model, [example], True))
        torch.testing.assert_close(alone[0], together[index, : frames[index]], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_evaluation_does_not_depend_on_its_batches(norm: str, request: pytest.FixtureRequest) -> None:
    model, processor = new_model(str(request.getfixturevalue(f"{norm}_norm_base")), FinetuneConfig(seed=1))
    split = ToneSplit(7, 1)
    whole = evaluate(model.train(), processor, split)
    parts = evaluate(model, processor, split, batch_s=1.0)
    assert model.training
    assert whole.loss == pytest.approx(parts.loss, rel=1e-4)
    assert whole.hypotheses == parts.hypotheses
    assert whole.references == [split[i].text for i in range(7)]
    assert whole.ids == [split[i].id for i in range(7)]
    assert transcribe_samples(model.eval(), processor, [split[i].samples for i in range(7)]) == whole.hypotheses


def test_saved_and_loaded_it_is_the_same_model(layer_norm_base: Path, tmp_path: Path) -> None:
    model, processor = new_model(str(layer_norm_base), FinetuneConfig(seed=1))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, again = load_model(tmp_path)
    batch = collated(model, [ToneSplit(1, 0)[0]], again.feature_extractor.do_normalize)
    assert logits_of(model.eval(), batch)[0].equal(logits_of(loaded, batch)[0])


def test_a_transcript_that_cannot_be_aligned_has_loss_zero_and_spoils_no_other() -> None:
    logits = torch.zeros(2, 5, len(VOCAB))
    labels = torch.tensor([5, 5, 5, 5, 5, 6])  # five alike need nine frames
    losses = ctc_losses(logits, torch.tensor([5, 5]), labels, torch.tensor([5, 1]))
    assert losses[0] == 0
    assert losses[1] > 0


@pytest.mark.parametrize("kind", ["missing", "bert", "broken", "empty"])
def test_what_is_no_wav2vec2_is_refused(kind: str, tmp_path: Path, layer_norm_base: Path) -> None:
    if kind == "bert":
        BertConfig().save_pretrained(tmp_path)
    elif kind == "broken":
        config = json.loads((layer_norm_base / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "wav2vec3"}))
    base = tmp_path / "nowhere" if kind == "missing" else tmp_path
    with pytest.raises(UserError) as refused:
        new_model(str(base), FinetuneConfig(seed=1))
    assert str(base) in str(refused.value)
    assert refused.value.fix


def test_a_checkpoint_of_other_weights_is_refused(layer_norm_base: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text((layer_norm_base / "config.json").read_text())
    save_file({"something.else": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="lacks"):
        new_model(str(tmp_path), FinetuneConfig(seed=1))


def test_the_demos_own_base_is_small_and_shaped_like_xls_r() -> None:
    model, processor = new_model("demo", FinetuneConfig(seed=1))
    encoder = sum(parameter.numel() for parameter in model.wav2vec2.parameters())
    assert 0.7e6 < encoder < 1.3e6
    assert model.config.feat_extract_norm == "layer"
    assert model.config.do_stable_layer_norm
    assert frame_lengths(model, torch.tensor([16_000])).item() == 49
    assert processor.feature_extractor.do_normalize
    package = Path(__file__).parents[2] / "hausa_asr/demo_base"
    assert (package / "model.safetensors").stat().st_size < 5e6


def test_audio_samples_may_be_of_any_length(layer_norm_base: Path) -> None:
    model, processor = new_model(str(layer_norm_base), FinetuneConfig(seed=1))
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal(n).astype(np.float32) for n in (5000, 40_000, 12_345)]
    assert len(transcribe_samples(model.eval(), processor, samples)) == 3
    assert transcribe_samples(model, processor, []) == []
