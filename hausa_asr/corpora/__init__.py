"""Corpora: read speech as it is laid out where it comes from, one module for each kind.

In: a folder, an archive, a URL or a dataset's id. Out: `Utterance`s, of which nothing was opened or checked yet.
Imports `audio` for where clips are, and no room above that.
"""
