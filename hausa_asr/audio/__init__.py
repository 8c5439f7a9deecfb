"""Audio: any file, URL or table row to mono samples at 16 kHz, or a refusal that says why.

In: a place, or the bytes of a file. Out: samples, their fingerprint, whether a file has changed. Imports no other room,
and its decoders only when they are used.
"""
