"""Hausa speech recognition: data, fine-tune, evaluation and export of wav2vec 2.0 CTC models."""

__version__ = "0.1.0"
