#!/usr/bin/env bash
# cifar10_simsiam and its baseline in full: ResNet-18, batch 512, bfloat16, 200 epochs.
# Usage: bash benchmarks/cifar10_gpu.sh OUT_DIR [more --config flags]
# images/s and kNN end up in OUT_DIR/*/metrics.jsonl. Resumes when run again.
set -euo pipefail
out=$1
shift
for variant in logo baseline; do
  "${PYTHON:-python}" -m logo_jax.main \
    --config="configs/cifar10_simsiam.py:$variant" --workdir="$out/simsiam_$variant" \
    --config.encoder.dtype=bfloat16 --config.monitor.knn_every_steps=970 "$@"
done
