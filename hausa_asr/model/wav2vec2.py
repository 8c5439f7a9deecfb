"""Load checkpoints: a base in, its encoder with a new CTC head over our alphabet out; or a fine-tuned model.

A base checkpoint is a hub id, a local folder, or `demo`, the tiny one in the package. `new_model` starts a trial from
it; `load_model` opens an exported model. Called by training, export, the sweeps and the command line.
"""

from __future__ import annotations

import copy
import json
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2AttnAdapterLayer

from hausa_asr.errors import UserError, first_line
from hausa_asr.model.base_check import base_path, check_base
from hausa_asr.model.forward import uses_layer_norm
from hausa_asr.model.kept import Kept
from hausa_asr.quiet import quiet
from hausa_asr.recipe import FinetuneConfig
from hausa_asr.text import PAD, UNK, VOCAB, WORD
from hausa_asr.utterance import SAMPLE_RATE

MASK_EMBEDDING = "wav2vec2.masked_spec_embed"
_NEW_PARTS = ("lm_head.", MASK_EMBEDDING)
"""Weights that a pretrained encoder may lack. If any other is missing, the checkpoint is refused."""
_ADAPTER = ".adapter_layer."
_DROPOUTS = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feat_proj_dropout",
    "final_dropout",
    "layerdrop",
)
"""Named alike in `FinetuneConfig` and in `transformers`."""


def is_new(name: str) -> bool:
    """Whether a trial starts with new values for a weight: the head, the mask embedding and adapters."""
    return name.startswith(_NEW_PARTS) or _ADAPTER in name


def new_processor(base: str, layer_norm: bool) -> Wav2Vec2Processor:
    """Make a processor with our alphabet and the base checkpoint's way to normalise audio.

    Args:
        base: the base checkpoint.
        layer_norm: whether its convolutions use layer norm; only then does it take an attention mask.
    """
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.json"
        vocabulary.write_text(json.dumps(VOCAB, ensure_ascii=False), encoding="utf-8")
        tokenizer = Wav2Vec2CTCTokenizer(
            str(vocabulary),
            pad_token=PAD,
            unk_token=UNK,
            word_delimiter_token=WORD,
            bos_token=None,  # the defaults would add two labels that no transcript has
            eos_token=None,
            clean_up_tokenization_spaces=False,  # else it joins " 'm" and the like, with which Hausa words begin
        )
    try:
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(base_path(base))
    except OSError:  # a checkpoint without preprocessor_config.json
        extractor = Wav2Vec2FeatureExtractor(do_normalize=True)
    if extractor.sampling_rate != SAMPLE_RATE:
        raise UserError(
            f"The base checkpoint wants audio at {extractor.sampling_rate} Hz, not {SAMPLE_RATE} Hz.",
            where=base,
            fix="Choose a wav2vec 2.0 checkpoint for 16 kHz speech.",
        )
    extractor.return_attention_mask = layer_norm
    return Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)


def new_model(base: str, config: FinetuneConfig) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """Start a model: the base checkpoint's encoder with a new CTC head; and its processor.

    Args:
        base: a hub id, a folder, or `demo`.
        config: the recipe. Its dropouts are set; its `seed` draws the weights of the head and of adapters; with
            `adapter_dim`, every layer gets a new adapter. With 0 adapters of the base stay as they are.

    Raises:
        UserError: the checkpoint cannot be found or is not a wav2vec 2.0 one.
    """
    kept = _kept((base, config.adapter_dim), lambda: _loaded(base, config.adapter_dim))
    settings = copy.deepcopy(kept.config)
    settings.update({name: getattr(config, name) for name in _DROPOUTS})
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(config.seed)
        with torch.device("meta"):  # allocates nothing, since all weights are replaced
            model = Wav2Vec2ForCTC(settings)
        model.load_state_dict({name: weight.clone() for name, weight in kept.weights.items()}, assign=True)
        # The base may have a head already, for other letters.
        model.lm_head.weight.data.normal_(std=0.02)
        model.lm_head.bias.data.zero_()
        if kept.new_mask_embedding:
            model.wav2vec2.masked_spec_embed.data.uniform_()
        if config.adapter_dim:
            _reset_adapters(model)  # the base's may be for another language
    # No transcript has <unk>: with this bias no program ever decodes it.
    model.lm_head.bias.data[VOCAB[UNK]] = -1e4
    return model, copy.deepcopy(kept.processor)


def _reset_adapters(model: Wav2Vec2ForCTC) -> None:
    """Draw new weights for all adapters, as small as those of a new head, so that a layer begins almost unchanged.

    `transformers`' own `init_adapter_layers` leaves them as they are: it is not applied to their parts.
    """
    for module in model.modules():
        if isinstance(module, Wav2Vec2AttnAdapterLayer):
            module.norm.reset_parameters()
            for linear in (module.linear_1, module.linear_2):
                linear.weight.data.normal_(std=model.config.initializer_range)
                linear.bias.data.zero_()


@dataclass(frozen=True)
class _Base:
    """A base checkpoint in memory, so that only the first trial of a process reads it from disk."""

    config: Any
    weights: dict[str, torch.Tensor]
    processor: Wav2Vec2Processor
    new_mask_embedding: bool

    @property
    def n_bytes(self) -> int:
        """The memory that its weights take."""
        return sum(weight.nbytes for weight in self.weights.values())


_kept: Kept[_Base] = Kept()


def _loaded(base: str, adapter_dim: int) -> _Base:
    check_base(base)
    adapters: Any = {"adapter_attn_dim": adapter_dim} if adapter_dim else {}
    try:
        with quiet():
            loaded: Any = Wav2Vec2ForCTC.from_pretrained(
                base_path(base),
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a head for another alphabet
                vocab_size=len(VOCAB),
                pad_token_id=VOCAB[PAD],
                bos_token_id=None,
                eos_token_id=None,
                ctc_loss_reduction="mean",
                ctc_zero_infinity=True,
                attn_implementation="sdpa",
                mask_time_prob=0.05,  # with 0 the model has no mask embedding; masks are drawn in masking.py
                add_adapter=False,
                **adapters,
            )
            model, info = loaded
            if adapter_dim:
                _check_adapters(model, base)
    except (OSError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"The base checkpoint's weights cannot be loaded ({first_line(error).rstrip('.')}).",
            where=f"model {base}",
            fix="Give a checkpoint with complete weights (model.safetensors or pytorch_model.bin).",
        ) from error
    lost = sorted(key for key in info["missing_keys"] if not is_new(key))
    if lost:
        raise UserError(
            f"The base checkpoint lacks {len(lost)} weights of a wav2vec 2.0 encoder, such as {lost[0]}.",
            where=base,
            fix="Choose a pretrained wav2vec 2.0 checkpoint, such as facebook/wav2vec2-xls-r-300m.",
        )
    return _Base(
        config=model.config,
        weights=dict(model.state_dict()),
        processor=new_processor(base, uses_layer_norm(model)),
        new_mask_embedding=MASK_EMBEDDING in info["missing_keys"],
    )


def _check_adapters(model: Wav2Vec2ForCTC, base: str) -> None:
    """Refuse adapters in a post-norm transformer: `transformers` has them in pre-norm layers only."""
    if model.wav2vec2.encoder.layers[0].__class__.__name__ != "Wav2Vec2EncoderLayerStableLayerNorm":
        raise UserError(
            "The base checkpoint's layers take no adapters, since its transformer is a post-norm one.",
            where=f"model {base}",
            fix="Set finetune.adapter_dim=0, or choose an MMS or XLS-R checkpoint.",
        )


def load_model(folder: str | Path) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """Load a fine-tuned model, in `eval` mode, and its processor from a folder or a hub id.

    Raises:
        UserError: it is missing, or not a model that this project has fine-tuned.
    """
    check_base(str(folder))
    try:
        with quiet():
            loaded: Any = Wav2Vec2ForCTC.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
            model, info = loaded
            processor = Wav2Vec2Processor.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"The folder has no complete fine-tuned model ({first_line(error).rstrip('.')}).",
            where=folder,
            fix="Give a folder that was written by `hausa-asr best-model` or `hausa-asr finetune`.",
        ) from error
    if info["missing_keys"] or processor.tokenizer.get_vocab() != VOCAB:
        raise UserError(
            "The model has no CTC head over this project's Hausa alphabet.",
            where=folder,
            fix="Give a model that was fine-tuned by this project.",
        )
    return model.eval(), processor
