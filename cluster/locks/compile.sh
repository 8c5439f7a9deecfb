#!/usr/bin/env bash
# Write cpu.txt and cuda.txt anew from pyproject.toml, and the lock of the MLflow server, for Python 3.11 on x86_64 Linux.
# Needs uv and a package registry.
# Run without options, versions that still fit stay as they are; --upgrade takes the newest.
set -euo pipefail
cd "$(dirname "$0")/../.."

compile() {
    uv pip compile \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --generate-hashes --only-binary :all: --no-emit-index-url --no-annotate \
        --custom-compile-command "cluster/locks/compile.sh" --quiet "$@"
}

project=(pyproject.toml --extra demo --extra lm --extra s3 --extra gs)
compile "${project[@]}" --output-file cluster/locks/cuda.txt "$@"
# All but torch and torchaudio at the versions of cuda.txt; those two are not on PyPI in their build for CPUs.
compile "${project[@]}" --output-file cluster/locks/cpu.txt --constraints cluster/locks/cuda.txt \
    --overrides cluster/locks/no_cuda.txt --no-emit-package torch --no-emit-package torchaudio "$@"
compile cluster/mlflow/requirements.in --output-file cluster/mlflow/requirements.txt \
    --constraints cluster/locks/cuda.txt "$@"
