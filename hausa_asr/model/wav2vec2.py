"""Base checkpoints and the model: a wav2vec 2.0 encoder, a new CTC head over our alphabet, and the processor.

A base checkpoint is a hub id, a local folder, or `demo`, the tiny one in the package. `new_model` starts a trial from
it and `load_model` opens an exported model.
"""

from __future__ import annotations

import copy
import json
import logging
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)
from transformers.utils import logging as transformers_logging

from hausa_asr.errors import UserError
from hausa_asr.model.forward import uses_layer_norm
from hausa_asr.text import PAD, UNK, VOCAB, WORD
from hausa_asr.utterance import SAMPLE_RATE

DEMO = "demo"
_DEMO_FOLDER = Path(__file__).parent.parent / "demo_base"
MASK_EMBEDDING = "wav2vec2.masked_spec_embed"
_NEW_PARTS = ("lm_head.", MASK_EMBEDDING)
"""What a pretrained encoder does not bring. Anything else that is missing means that it is not one."""
_ADAPTER = ".adapter_layer."


def is_new(name: str) -> bool:
    """Whether a weight is one that a trial starts with new values for: the head, the mask embedding, adapters."""
    return name.startswith(_NEW_PARTS) or _ADAPTER in name


def base_path(base: str) -> str:
    """Where `from_pretrained` finds a base checkpoint: `demo` is in the package, all else is taken as it is."""
    return str(_DEMO_FOLDER) if base == DEMO else base


def new_processor(base: str, layer_norm: bool) -> Wav2Vec2Processor:
    """A processor with our alphabet and the base checkpoint's way to normalise audio.

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
            clean_up_tokenization_spaces=False,  # it joins " 'm" and the like, which Hausa words begin with
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


def new_model(
    base: str,
    *,
    seed: int,
    hidden_dropout: float = 0.0,
    attention_dropout: float = 0.0,
    activation_dropout: float = 0.0,
    feat_proj_dropout: float = 0.0,
    final_dropout: float = 0.0,
    layerdrop: float = 0.0,
    adapter_dim: int = 0,
) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """The base checkpoint's encoder with a new CTC head, and its processor.

    Args:
        base: a hub id, a folder, or `demo`.
        seed: of the first weights of the head and of adapters.
        hidden_dropout, attention_dropout, activation_dropout, feat_proj_dropout, final_dropout, layerdrop: as in
            `FinetuneConfig`.
        adapter_dim: put new adapters of this width into every layer; 0 for none but those that the base may have.

    Raises:
        UserError: the checkpoint cannot be found or is not a wav2vec 2.0 one.
    """
    kept = _kept(base, adapter_dim)
    config = copy.deepcopy(kept.config)
    config.update(
        {
            "hidden_dropout": hidden_dropout,
            "attention_dropout": attention_dropout,
            "activation_dropout": activation_dropout,
            "feat_proj_dropout": feat_proj_dropout,
            "final_dropout": final_dropout,
            "layerdrop": layerdrop,
        }
    )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        with torch.device("meta"):  # no memory and no first values, which the kept ones replace
            model = Wav2Vec2ForCTC(config)
        model.load_state_dict({name: weight.clone() for name, weight in kept.weights.items()}, assign=True)
        # The base may bring a head of its own, whose rows mean other letters.
        model.lm_head.weight.data.normal_(std=0.02)
        model.lm_head.bias.data.zero_()
        if kept.new_mask_embedding:
            model.wav2vec2.masked_spec_embed.data.uniform_()
        if adapter_dim:
            model.init_adapter_layers()  # the base's may be for another language
    # No transcript has <unk>: with this bias it is never read out, here and in any other program.
    model.lm_head.bias.data[VOCAB[UNK]] = -1e4
    return model, copy.deepcopy(kept.processor)


@dataclass(frozen=True)
class _Kept:
    """A base checkpoint in memory, which every trial of a process starts from without reading it again."""

    config: Any
    weights: dict[str, torch.Tensor]
    processor: Wav2Vec2Processor
    new_mask_embedding: bool


@lru_cache(maxsize=1)
def _kept(base: str, adapter_dim: int) -> _Kept:
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
                mask_time_prob=0.05,  # above 0, or the mask embedding is not made at all; masks are ours (masking.py)
                add_adapter=False,
                **adapters,
            )
            model, info = loaded
            if adapter_dim:
                _check_adapters(model, base)
    except (OSError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"The base checkpoint's weights cannot be loaded: {_first_line(error)}",
            where=f"model {base}",
            fix="Give a checkpoint with complete weights (model.safetensors or pytorch_model.bin).",
        ) from error
    lost = sorted(key for key in info["missing_keys"] if not is_new(key))
    if lost:
        raise UserError(
            f"The base checkpoint lacks {len(lost)} weights of a wav2vec 2.0 encoder, {lost[0]} for one.",
            where=base,
            fix="Choose a pretrained wav2vec 2.0 checkpoint, such as facebook/wav2vec2-xls-r-300m.",
        )
    return _Kept(
        config=model.config,
        weights=dict(model.state_dict()),
        processor=new_processor(base, uses_layer_norm(model)),
        new_mask_embedding=MASK_EMBEDDING in info["missing_keys"],
    )


def _check_adapters(model: Wav2Vec2ForCTC, base: str) -> None:
    """`transformers` has adapters in pre-norm layers only."""
    if model.wav2vec2.encoder.layers[0].__class__.__name__ != "Wav2Vec2EncoderLayerStableLayerNorm":
        raise UserError(
            "The base checkpoint's layers take no adapters: its transformer is a post-norm one.",
            where=f"model {base}",
            fix="Set finetune.adapter_dim=0, or choose an MMS or XLS-R checkpoint.",
        )


def load_model(folder: str | Path) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """A fine-tuned model and its processor, ready for use (`eval` mode), from a folder or a hub id.

    Raises:
        UserError: there is no fine-tuned wav2vec 2.0 model.
    """
    check_base(str(folder))
    try:
        with quiet():
            loaded: Any = Wav2Vec2ForCTC.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
            model, info = loaded
            processor = Wav2Vec2Processor.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"The folder has no complete fine-tuned model: {_first_line(error)}",
            where=folder,
            fix="Give a folder that `hausa-asr best-model` or `hausa-asr finetune` has written.",
        ) from error
    if info["missing_keys"] or processor.tokenizer.get_vocab() != VOCAB:
        raise UserError(
            "The model has no CTC head over this project's Hausa alphabet.",
            where=folder,
            fix="Give a model that was fine-tuned by this project.",
        )
    return model.eval(), processor


def check_base(base: str) -> None:
    """Refuse what is no wav2vec 2.0 checkpoint, by its configuration alone.

    Raises:
        UserError: it cannot be found, or is another model.
    """
    try:
        config = AutoConfig.from_pretrained(base_path(base))
    except (OSError, ValueError) as error:
        raise UserError(
            f"No checkpoint can be loaded: {_first_line(error)}",
            where=f"model {base}",
            fix="Give the id of a wav2vec 2.0 checkpoint on the Hugging Face hub, or a folder that has its "
            "config.json and weights (without a network, download it first).",
        ) from error
    if config.model_type != "wav2vec2":
        raise UserError(
            f"The checkpoint is a {config.model_type!r} model, not a wav2vec 2.0 one.",
            where=f"model {base}",
            fix="Choose a wav2vec 2.0 checkpoint, such as facebook/wav2vec2-xls-r-300m or facebook/mms-300m.",
        )
    folder = Path(base_path(base))
    if folder.is_dir() and not any(folder.glob("*.safetensors*")) and not any(folder.glob("pytorch_model*")):
        raise UserError(
            "The folder has a wav2vec 2.0 configuration but no weights.",
            where=f"model {base}",
            fix="Add its model.safetensors (or pytorch_model.bin), as the hub has it.",
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps `transformers` from printing bars for tiny files, and that the head is new, which is the point."""
    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
