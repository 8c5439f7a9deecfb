"""Audio: turn any file, URL or table row into mono samples at 16 kHz, or refuse it with a reason.

In: a place, or the bytes of a file. Out: samples, their fingerprint, whether a file has changed. Imports no other room,
and its decoders only when they are used.
"""
