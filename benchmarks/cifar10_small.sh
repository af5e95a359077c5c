#!/usr/bin/env bash
# All four variants of both methods on CIFAR-10 at a size two CPU cores finish.
# Usage: bash benchmarks/cifar10_small.sh OUT_DIR STEPS [more --config flags]
# Data: --config.data.source=npz --config.data.path=DIR, or a prepared TFDS directory.
set -euo pipefail
out=$1 steps=$2
shift 2
for variant in logo baseline multicrop all_pairs; do
  for method in simsiam moco; do
    locals="(2,16,(0.08,0.6))"
    scale="(0.4,1.0)"
    if [ "$variant" = baseline ]; then locals="(0,16,(0.08,0.6))" scale="(0.2,1.0)"; fi
    extra=(--config.encoder.head_hidden=256)
    if [ "$method" = simsiam ]; then
      extra+=(--config.encoder.embedding_dim=256 --config.method.predictor_hidden=64)
    fi
    "${PYTHON:-python}" -m logo_jax.main \
      --config="configs/cifar10_$method.py:$variant" --workdir="$out/${method}_$variant" \
      --config.encoder.backbone=resnet10 --config.encoder.width=16 "${extra[@]}" \
      --config.crops.global_crops="(2,16,$scale)" --config.crops.local_crops="$locals" \
      --config.data.batch_size=128 --config.optimizer.learning_rate=0.12 \
      --config.train.num_steps="$steps" --config.train.log_every_steps=10 \
      --config.train.checkpoint_every_steps="$steps" \
      --config.monitor.knn_every_steps=$((steps / 4)) \
      --config.monitor.train_examples=5000 --config.monitor.test_examples=1000 "$@"
  done
done
