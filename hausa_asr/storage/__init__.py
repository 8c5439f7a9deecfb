"""Storage anywhere: one way to write, read, fetch and delete, on a disk and in an object store.

A *place* is a path or an address (`s3://bucket/runs`). On a disk all here comes down to a plain file operation and
nothing is copied. What an address names has a *twin*, the path below this node's scratch folder where it is worked on:
`address` knows both. Whole files and folders are in `objects` and `folders`, one download for all processes of a node
in `fetched`, and the right to write to a place in `lease`. Nothing here knows what is in the files.
"""
