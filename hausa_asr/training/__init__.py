"""The fine-tune: a recipe, train and dev splits and a base checkpoint in; checkpoints and reports out. A laptop, a test
and a Ray worker call the same function, `finetune`. It needs neither Ray nor MLflow, settings files or audio decoders:
only `hausa_asr.model`, `hausa_asr.decoding` and the ground floor may be imported here."""
