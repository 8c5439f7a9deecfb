"""Decoding: a model's logits in, texts out. It knows labels and letters, and no models: nothing of `hausa_asr.model` or
above may be imported here."""
