"""Diagnosis: what a model gets wrong, and where. Transcripts beside what was heard in; counts with intervals, findings
in words and a page out. It trains nothing: nothing of `hausa_asr.training` or above may be imported here."""
