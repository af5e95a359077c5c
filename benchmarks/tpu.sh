#!/usr/bin/env bash
# On a fresh machine with TPUs: installs the library, runs the tests, measures what
# docs/performance.md leaves open, trains the CIFAR-10 study for a few epochs to compare with
# published accuracies, and writes one page, OUT/page.md. benchmarks/runbook.sh says how.
#   bash benchmarks/tpu.sh OUT          sizes for a v5e with four chips; downloads CIFAR-10
#   bash benchmarks/tpu.sh OUT small    small sizes, which take minutes on a CPU
#   PYTHON=.venv/bin/python bash benchmarks/tpu.sh OUT     uses an environment that exists
set -uo pipefail
source "$(dirname "$0")/runbook.sh"
begin tpu,dev "$1"
if [ "${2:-}" = small ]; then
  run step python -m benchmarks.step --backbone=resnet10 --width=4 --batch_size=4 --rounds=1 --product=64 --methods=simsiam --kinds=two_crop,logo_joint --real
  run operations python -m benchmarks.top_operations --backbone=resnet10 --width=4 --batch_size=4
  run start python -m benchmarks.startup --rounds=1
  run knn python -m benchmarks.knn --bank=500 --queries=100 --dim=16 --k=20
  run study python -m logo_jax.sweep --sweep=configs/study/cifar10_gpu.py --out="$out/study" --seeds=1 --flagfile=benchmarks/small_study.flags
else
  run tests env JAX_PLATFORMS=cpu python -m pytest -q -n 4 -m "slow or not slow"
  run tests_on_the_tpu env JAX_PLATFORMS=tpu JAX_DEFAULT_MATMUL_PRECISION=highest python -m pytest -q -n 0 tests/golden tests/losses
  run step_cifar python -m benchmarks.step --preset=cifar --batch_size=128 --product=4096 --real
  run step_imagenet python -m benchmarks.step --preset=imagenet --batch_size=32 --product=4096 --kinds=two_crop,logo_joint
  run operations_cifar python -m benchmarks.top_operations --preset=cifar --batch_size=128 --method=simsiam
  run operations_imagenet python -m benchmarks.top_operations --preset=imagenet --batch_size=32
  run input python -m benchmarks.input
  run start python -m benchmarks.startup
  run knn python -m benchmarks.knn --bank=50000 --queries=10000 --dim=512 --k=200
  run transfer python -m benchmarks.transfer --synthetic 3000 512 100 --condition 1e3
  run data python -m logo_jax.prepare cifar10
  run study python -m logo_jax.sweep --sweep=configs/study/cifar10_gpu.py --out="$out/study" --seeds=1 --config.train.num_epochs=10
fi
finish "What was measured on TPUs"
