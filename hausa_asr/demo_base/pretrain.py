"""Pretrain the demo's base checkpoint: `python -m hausa_asr.demo_base.pretrain --out FOLDER`.

Speech of pseudo-words in, an encoder's folder out. A freeze schedule is pointless on random weights, so the demo's tiny
model is pretrained like the large ones, but with labels: CTC on pseudo-words of all Hausa sounds, in voices that the
demo corpus does not use. None of them is a word of the demo corpus. The CTC head is thrown away, the encoder is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from hausa_asr.corpora import pseudo
from hausa_asr.dataset.prepare import PrepareSettings, prepare
from hausa_asr.model.wav2vec2 import quiet
from hausa_asr.recipe import Answer, FinetuneConfig, Progress
from hausa_asr.training import checkpoint
from hausa_asr.training.finetune import Data, finetune

CONFIG = Wav2Vec2Config(
    hidden_size=144,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=576,
    conv_dim=(32, 64, 128, 128),  # the first layers see the most samples, and take the most time on a CPU
    conv_kernel=(10, 8, 4, 4),
    conv_stride=(5, 4, 4, 4),  # 320 samples a frame, as in every wav2vec 2.0
    num_feat_extract_layers=4,  # type: ignore[call-arg]
    conv_bias=True,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    num_conv_pos_embeddings=32,
    num_conv_pos_embedding_groups=16,
    mask_feature_length=16,
)
"""Shaped like XLS-R (layer norm, pre-norm transformer), with a three-hundredth of its parameters."""

RECIPE = FinetuneConfig(
    length_s=80_000.0,
    batch_s=24.0,
    micro_batch_s=40.0,
    eval_every_steps=250,
    lr_peak=2e-3,
    warmup_fraction=0.08,
    schedule="linear",
    mask_time_prob=0.15,
    mask_time_length=5,
    mask_feature_prob=0.05,
    mask_feature_length=16,
    freeze_feature_encoder=False,
    activation_dropout=0.0,
    seed=1,
)


def main() -> None:
    """Speak pseudo-words, train on them, and write the encoder to a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where config.json and weights go")
    parser.add_argument("--work", type=Path, help="keep speech and checkpoints here, and resume from them")
    parser.add_argument("--length-s", type=float, default=RECIPE.length_s, help="seconds of audio to train on")
    parser.add_argument("--count", type=int, default=3000, help="utterances to speak")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        start = work / "start"
        torch.manual_seed(RECIPE.seed)
        with quiet():
            Wav2Vec2Model(CONFIG).save_pretrained(start)
        Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(start)
        utterances = pseudo.utterances(work / "pseudo", count=arguments.count)
        prepared = prepare(utterances, work / "prepared", PrepareSettings())
        recipe = replace(RECIPE, length_s=arguments.length_s)
        result = finetune(
            recipe,
            Data(prepared.splits["train"], prepared.splits["dev"]),
            _print,
            base=str(start),
            folder=work / "trial",
        )
        model, processor = checkpoint.load(result.progress.checkpoint)
        encoder = model.wav2vec2
        encoder.config = Wav2Vec2Config(**CONFIG.to_dict())  # without the head's settings
        with quiet():
            encoder.save_pretrained(work / "encoder")
        processor.feature_extractor.save_pretrained(work / "encoder")
        for file in (work / "encoder").iterdir():
            shutil.copy(file, arguments.out / file.name)
    count = sum(parameter.numel() for parameter in encoder.parameters())
    print(f"{count:,} parameters in {arguments.out}")


def _print(progress: Progress) -> Answer:
    figures = " ".join(f"{name}={progress.metrics[name]:.3f}" for name in ("train_loss", "loss", "cer", "wer"))
    print(
        f"step {progress.step}/{progress.updates} {figures} {progress.metrics['audio_s_per_s']:.0f} audio-s/s",
        flush=True,
    )
    return Answer.CONTINUE


if __name__ == "__main__":
    main()
