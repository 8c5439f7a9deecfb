"""The demo's base checkpoint: weights of a wav2vec 2.0 of about 1 M parameters, and `pretrain.py`, which made them from
synthetic speech. It may import any library room but export and the command line; no other room imports it, and the
model reads only its files."""
