"""Base checkpoints and the model: a wav2vec 2.0 encoder, a new CTC head over our alphabet, and the processor.

A base checkpoint is a hub id, a local folder, or `demo`, the tiny one in the package. `new_model` starts a trial from
it and `load_model` opens what a trial has saved. The forward pass is spelled out in three steps (`encode_audio`,
`ctc_logits`, `ctc_losses`) over the modules of `transformers`, so that masks can be passed in and frozen parts really
cost nothing.
"""

from __future__ import annotations

import json
import logging
import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
from hausa_asr.manifest import SAMPLE_RATE
from hausa_asr.schedules import Trainable
from hausa_asr.text import PAD, UNK, VOCAB, WORD

DEMO = "demo"
_DEMO_FOLDER = Path(__file__).parent / "base"
_NEW_PARTS = ("lm_head.", "wav2vec2.masked_spec_embed")
"""What a pretrained encoder does not bring. Anything else that is missing means that it is not one."""


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


def uses_layer_norm(model: Wav2Vec2ForCTC) -> bool:
    """Whether the convolutions use layer norm ("large", XLS-R, MMS), which alone is blind to padding."""
    return model.config.feat_extract_norm == "layer"


def new_model(
    base: str,
    *,
    seed: int,
    dropout: float = 0.0,
    activation_dropout: float = 0.0,
    layerdrop: float = 0.0,
) -> tuple[Wav2Vec2ForCTC, Wav2Vec2Processor]:
    """The base checkpoint's encoder with a new CTC head, and its processor.

    Args:
        base: a hub id, a folder, or `demo`.
        seed: of the head's first weights.
        dropout: of the hidden states and attention weights.
        activation_dropout: inside the feed-forward layers.
        layerdrop: the chance that a whole layer is skipped in an update.

    Raises:
        UserError: the checkpoint cannot be found or is not a wav2vec 2.0 one.
    """
    path = base_path(base)
    check_base(base)
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            loaded: Any = Wav2Vec2ForCTC.from_pretrained(
                path,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # a head for another alphabet
                vocab_size=len(VOCAB),
                pad_token_id=VOCAB[PAD],
                bos_token_id=None,
                eos_token_id=None,
                ctc_loss_reduction="mean",
                ctc_zero_infinity=True,
                hidden_dropout=dropout,
                attention_dropout=dropout,
                activation_dropout=activation_dropout,
                feat_proj_dropout=0.0,
                final_dropout=0.0,
                layerdrop=layerdrop,
                mask_time_prob=0.05,  # above 0, or the mask embedding is not made at all; masks are ours (batching.py)
                add_adapter=False,
            )
            model, info = loaded
            # The base may bring a head of its own, whose rows mean other letters.
            model.lm_head.weight.data.normal_(std=0.02)
            model.lm_head.bias.data.zero_()
    except (OSError, ValueError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"The base checkpoint's weights cannot be loaded: {_first_line(error)}",
            where=f"model {base}",
            fix="Give a checkpoint with complete weights (model.safetensors or pytorch_model.bin).",
        ) from error
    lost = sorted(key for key in info["missing_keys"] if not key.startswith(_NEW_PARTS))
    if lost:
        raise UserError(
            f"The base checkpoint lacks {len(lost)} weights of a wav2vec 2.0 encoder, {lost[0]} for one.",
            where=base,
            fix="Choose a pretrained wav2vec 2.0 checkpoint, such as facebook/wav2vec2-xls-r-300m.",
        )
    # No transcript has <unk>: with this bias it is never read out, here and in any other program.
    model.lm_head.bias.data[VOCAB[UNK]] = -1e4
    return model, new_processor(base, uses_layer_norm(model))


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


def frame_lengths(model: Wav2Vec2ForCTC, n_samples: torch.Tensor) -> torch.Tensor:
    """Frames that the encoder makes of so many samples; (B,) to (B,), int64."""
    lengths: Any = model._get_feat_extract_output_lengths(n_samples)  # type: ignore[arg-type]
    return lengths.to(torch.int64)


def encode_audio(model: Wav2Vec2ForCTC, samples: torch.Tensor, *, frozen: bool) -> torch.Tensor:
    """The convolutional feature encoder.

    Args:
        model: the model.
        samples: (B, S) float32, normalised.
        frozen: compute no gradients for it.

    Returns:
        (B, T, C) features.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        # The encoder asks for a gradient of its input in training mode, which would keep every activation.
        model.wav2vec2.feature_extractor._requires_grad = not frozen
        return model.wav2vec2.feature_extractor(samples).transpose(1, 2)


def ctc_logits(
    model: Wav2Vec2ForCTC,
    features: torch.Tensor,
    frames: torch.Tensor,
    time_mask: torch.Tensor | None = None,
    feature_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The transformer and the CTC head.

    Args:
        model: the model.
        features: (B, T, C) from `encode_audio`.
        frames: (B,) frames of each utterance before padding.
        time_mask: (B, T) bool; frames replaced by the mask embedding. None when not training.
        feature_mask: (B, hidden) bool; features set to 0 in all frames. None when not training.

    Returns:
        (B, T, V) logits, float32.
    """
    encoder = model.wav2vec2
    hidden, _ = encoder.feature_projection(features)
    if time_mask is not None:
        mask_embedding = encoder.masked_spec_embed.to(hidden.dtype)
        hidden = torch.where(time_mask[:, :, None], mask_embedding, hidden)
    if feature_mask is not None:
        hidden = hidden.masked_fill(feature_mask[:, None, :], 0.0)
    attention_mask = None
    if uses_layer_norm(model):
        attention_mask = torch.arange(hidden.shape[1], device=hidden.device) < frames.to(hidden.device)[:, None]
        hidden = hidden * attention_mask[:, :, None]  # also keeps the encoder from writing zeros into a view
    hidden = encoder.encoder(hidden, attention_mask=attention_mask).last_hidden_state
    return model.lm_head(model.dropout(hidden)).float()


def ctc_losses(
    logits: torch.Tensor, frames: torch.Tensor, labels: torch.Tensor, label_lengths: torch.Tensor
) -> torch.Tensor:
    """The CTC loss of each utterance over its number of labels, in float32.

    Args:
        logits: (B, T, V).
        frames: (B,) frames before padding.
        labels: (sum of label lengths,) label ids, one utterance after another.
        label_lengths: (B,).

    Returns:
        (B,) nats per label; 0 for an utterance that cannot be aligned (`prepare` refuses those).
    """
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    with torch.backends.cudnn.flags(enabled=False):  # its CTC takes no blank but 0 and is not deterministic
        losses = torch.nn.functional.ctc_loss(
            log_probs,
            labels,
            frames.to(logits.device),
            label_lengths,
            blank=VOCAB[PAD],
            reduction="none",
            zero_infinity=True,
        )
    return losses / label_lengths.clamp(min=1)


def set_trainable(model: Wav2Vec2ForCTC, parts: Trainable, *, feature_encoder: bool) -> None:
    """Turn gradients on for what learns at this step and off for the rest.

    Autograd records nothing below the lowest part that learns, so a frozen transformer costs a forward pass only.
    `feature_encoder` frees the convolutions too, once all that lies above them learns.
    """
    encoder = model.wav2vec2
    encoder.feature_extractor.requires_grad_(feature_encoder and parts.projection)
    encoder.feature_projection.requires_grad_(parts.projection)
    encoder.masked_spec_embed.requires_grad_(parts.projection)
    encoder.encoder.requires_grad_(parts.projection)  # the positional convolution and the layer norm
    for index, layer in enumerate(encoder.encoder.layers):
        layer.requires_grad_(index >= parts.first_layer)
    # The last layer norm of a pre-norm transformer lies above all layers.
    if model.config.do_stable_layer_norm:
        encoder.encoder.layer_norm.requires_grad_(parts.first_layer < len(encoder.encoder.layers))
    model.lm_head.requires_grad_(True)
