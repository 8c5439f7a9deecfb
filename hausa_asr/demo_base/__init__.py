"""The demo's base checkpoint: a wav2vec 2.0 of about 1 M parameters, pretrained by `pretrain.py` beside its weights."""
