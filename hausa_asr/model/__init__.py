"""The wav2vec 2.0 CTC model: a base checkpoint or an exported model in; logits, losses, scores and texts out. Called by
training, export, the sweeps and the command line. How a model is trained is not known here: nothing of
`hausa_asr.training`, `hausa_asr.dataset` or above may be imported."""
