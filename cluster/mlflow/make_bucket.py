"""Make the bucket of the artifacts if it isn't there: python make_bucket.py NAME, with boto3's own variables."""

import sys

import boto3

store, name = boto3.client("s3"), sys.argv[1]
if name not in [bucket["Name"] for bucket in store.list_buckets()["Buckets"]]:
    store.create_bucket(Bucket=name)
