#!/usr/bin/env bash
# Write the locks anew from pyproject.toml, and that of the MLflow server, for Python 3.11 on x86_64 Linux:
# cuda.txt and cpu.txt for nodes, with hashes; dev.txt for `make`, which also has the other extras, without.
# Needs uv and a package registry.
# Run without options, versions that still fit stay as they are; --upgrade takes the newest.
set -euo pipefail
cd "$(dirname "$0")/../.."

compile() {
    uv pip compile \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
        --only-binary :all: --no-emit-index-url --no-annotate \
        --custom-compile-command "cluster/locks/compile.sh" --quiet "$@"
}

nodes=(pyproject.toml --extra demo --extra lm --extra s3 --extra gs --extra aws)
# First, since it has all. PyTorch is not pinned there: which build there is depends on the machine.
compile "${nodes[@]}" --extra dev --extra onnx --extra serve --overrides cluster/locks/no_cuda.txt \
    --no-emit-package torch --no-emit-package torchaudio --output-file cluster/locks/dev.txt "$@"
compile "${nodes[@]}" --generate-hashes --constraints cluster/locks/dev.txt --output-file cluster/locks/cuda.txt "$@"
# All but torch and torchaudio at the versions of cuda.txt; those two are not on PyPI in their build for CPUs.
compile "${nodes[@]}" --generate-hashes --constraints cluster/locks/cuda.txt \
    --overrides cluster/locks/no_cuda.txt --no-emit-package torch --no-emit-package torchaudio \
    --output-file cluster/locks/cpu.txt "$@"
compile cluster/mlflow/requirements.in --generate-hashes --constraints cluster/locks/cuda.txt \
    --output-file cluster/mlflow/requirements.txt "$@"
