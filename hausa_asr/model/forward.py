"""The forward pass of a wav2vec 2.0 CTC model: samples or cached features in, logits and losses out.

Three steps: `encode_audio` (the convolutions), `ctc_logits` (the transformer and the CTC head), `ctc_losses`. They call
the modules of `transformers`, and a test holds that the result is the same as `transformers`' own. Written out so that
masks are passed in, features can come from a cache, frozen parts cost no backward pass, and little waits for the
device: lengths stay on the CPU. Called by training, the evaluation and the feature cache.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import Wav2Vec2ForCTC

from hausa_asr.model.device import computes_in_bfloat16
from hausa_asr.text import PAD, VOCAB


def uses_layer_norm(model: Wav2Vec2ForCTC) -> bool:
    """Whether the convolutions use layer norm ("large", XLS-R, MMS): `transformers` masks the padding of these only."""
    return model.config.feat_extract_norm == "layer"


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where the device computes in it, else float32; never float16, in which CTC's sums overflow."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=computes_in_bfloat16(device))


def frame_lengths(model: Wav2Vec2ForCTC, n_samples: torch.Tensor) -> torch.Tensor:
    """Lengths in frames, (B,) int64, from lengths in samples, (B,)."""
    lengths: Any = model._get_feat_extract_output_lengths(n_samples)  # type: ignore[arg-type]
    return lengths.to(torch.int64)


def encode_audio(
    model: Wav2Vec2ForCTC, samples: torch.Tensor, n_samples: torch.Tensor, *, frozen: bool
) -> torch.Tensor:
    """Run the convolutional feature encoder.

    Padding changes nothing, also where the first convolution has a group norm (wav2vec2-base): its mean and variance
    are those of an utterance's own samples.

    Args:
        model: the model.
        samples: (B, S) float32, normalised, padded.
        n_samples: (B,) samples of each utterance before padding, on the CPU.
        frozen: compute no gradients.

    Returns:
        (B, T, C) features.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        # The encoder asks for a gradient of its input in training mode, which would keep every activation.
        encoder = model.wav2vec2.feature_extractor
        encoder._requires_grad = not frozen
        if uses_layer_norm(model) or int(n_samples.min()) == samples.shape[1]:
            return encoder(samples).transpose(1, 2)
        first, *others = encoder.conv_layers
        hidden = _normed_by_own(first, samples, n_samples)
        for layer in others:
            hidden = layer(hidden)
        return hidden.transpose(1, 2)


def _normed_by_own(layer: Any, samples: torch.Tensor, n_samples: torch.Tensor) -> torch.Tensor:
    """Run a convolution and its group norm, whose statistics leave out the padding; (B, S) to (B, C, T).

    Every channel is a group of its own. In float32, as torch computes norms under autocast too.
    """
    hidden = layer.conv(samples[:, None])
    (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
    lengths = ((n_samples - kernel) // stride + 1).to(hidden.device, non_blocking=True)[:, None, None]
    own = torch.arange(hidden.shape[-1], device=hidden.device) < lengths
    with torch.autocast(hidden.device.type, enabled=False):
        values, norm = hidden.float(), layer.layer_norm
        mean = torch.where(own, values, 0.0).sum(-1, keepdim=True) / lengths
        variance = torch.where(own, (values - mean) ** 2, 0.0).sum(-1, keepdim=True) / lengths
        normed = (values - mean) * torch.rsqrt(variance + norm.eps)
        return layer.activation(normed * norm.weight[:, None] + norm.bias[:, None])


def ctc_logits(
    model: Wav2Vec2ForCTC,
    features: torch.Tensor,
    frames: torch.Tensor,
    time_mask: torch.Tensor | None = None,
    feature_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run the transformer and the CTC head.

    Args:
        model: the model.
        features: (B, T, C) from `encode_audio`, or from a cache as bfloat16.
        frames: (B,) frames of each utterance before padding, on the CPU.
        time_mask: (B, T) bool; frames replaced by the mask embedding. None when not training.
        feature_mask: (B, hidden) bool; features set to 0 in all frames. None when not training.

    Returns:
        (B, T, V) logits, float32.
    """
    wav2vec2 = model.wav2vec2
    if not torch.is_autocast_enabled(features.device.type):
        features = features.float()
    hidden, _ = wav2vec2.feature_projection(features)
    if time_mask is not None:
        mask_embedding = wav2vec2.masked_spec_embed.to(hidden.dtype)
        hidden = torch.where(time_mask[:, :, None], mask_embedding, hidden)
    if feature_mask is not None:
        hidden = hidden.masked_fill(feature_mask[:, None, :], 0.0)
    hidden = _transformer(model, hidden, frames)
    # In float32: with bfloat16's eight bits, two letters of nearly the same score could tie.
    with torch.autocast(hidden.device.type, enabled=False):
        return model.lm_head(model.dropout(hidden).float())


def _transformer(model: Wav2Vec2ForCTC, hidden: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Run the transformer encoder, (B, T, hidden) to (B, T, hidden).

    `transformers`' own asks the device whether anything is padded, and waits for the answer; here the CPU knows.
    """
    encoder: Any = model.wav2vec2.encoder
    attention_mask = None
    if int(frames.min()) < hidden.shape[1]:
        on_device = frames.to(hidden.device, non_blocking=True)
        not_padded = torch.arange(hidden.shape[1], device=hidden.device) < on_device[:, None]
        hidden = hidden * not_padded[:, :, None]
        attention_mask = not_padded[:, None, None, :]
    hidden = hidden + encoder.pos_conv_embed(hidden)
    pre_norm = model.config.do_stable_layer_norm
    if not pre_norm:
        hidden = encoder.layer_norm(hidden)
    hidden = encoder.dropout(hidden)
    layerdrop = model.config.layerdrop if model.training else 0.0
    computes_again = encoder.gradient_checkpointing and model.training and torch.is_grad_enabled()
    for layer in encoder.layers:
        # Drawn on the CPU, so that nothing waits for the device.
        if layerdrop and float(torch.rand([])) < layerdrop:
            continue
        if computes_again:  # around the layer, which may be compiled: inside it torch.compile would give up
            hidden = encoder._gradient_checkpointing_func(partial(layer, attention_mask=attention_mask), hidden)
        else:
            hidden = layer(hidden, attention_mask=attention_mask)
    return encoder.layer_norm(hidden) if pre_norm else hidden


def ctc_losses(
    logits: torch.Tensor, frames: torch.Tensor, labels: torch.Tensor, label_lengths: torch.Tensor
) -> torch.Tensor:
    """The CTC loss of each utterance, divided by its number of labels, in float32.

    Args:
        logits: (B, T, V).
        frames: (B,) frames before padding, on the CPU.
        labels: (sum of label lengths,) label ids, one utterance after another.
        label_lengths: (B,), on the CPU.

    Returns:
        (B,) nats per label; 0 for an utterance that cannot be aligned (`prepare` refuses those).
    """
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    # cuDNN's takes at most 255 labels. Lengths are lists, since as tensors they make torch copy the labels back.
    with torch.backends.cudnn.flags(enabled=False):
        losses = torch.nn.functional.ctc_loss(
            log_probs,
            labels,
            frames.tolist(),  # type: ignore[arg-type]
            label_lengths.tolist(),  # type: ignore[arg-type]
            blank=VOCAB[PAD],
            reduction="none",
            zero_infinity=True,
        )
    return losses / label_lengths.to(losses.device, non_blocking=True).clamp(min=1)
