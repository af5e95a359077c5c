#!/usr/bin/env bash
# On a fresh machine with an NVIDIA GPU: installs the library, runs the tests, measures what
# docs/performance.md leaves open, trains the CIFAR-10 study for a few epochs to compare with
# published accuracies, and writes one page, OUT/page.md. benchmarks/runbook.sh says how.
#   bash benchmarks/gpu.sh OUT          sizes for an H200; downloads CIFAR-10
#   bash benchmarks/gpu.sh OUT small    small sizes, which take minutes on a CPU
#   PYTHON=.venv/bin/python bash benchmarks/gpu.sh OUT     uses an environment that exists
set -uo pipefail
source "$(dirname "$0")/runbook.sh"
begin cuda,bench,dev "$1"
if [ "${2:-}" = small ]; then
  run step python -m benchmarks.step --backbone=resnet10 --width=4 --batch_size=4 --rounds=1 --product=64 --methods=simsiam --kinds=two_crop,logo_joint --real
  run operations python -m benchmarks.top_operations --backbone=resnet10 --width=4 --batch_size=4
  run input python -m benchmarks.input --images=2 --canvas=16 --global_size=12 --local_size=12 --rounds=1 --no_step
  run start python -m benchmarks.startup --rounds=1
  run knn python -m benchmarks.knn --bank=500 --queries=100 --dim=16 --k=20
  run transfer python -m benchmarks.transfer --synthetic 200 16 5 --strengths=2
  run study python -m logo_jax.sweep --sweep=configs/study/cifar10_gpu.py --out="$out/study" --seeds=1 --flagfile=benchmarks/small_study.flags
else
  run tests env JAX_PLATFORMS=cpu python -m pytest -q -n 4 -m "slow or not slow"
  run tests_on_the_gpu env JAX_PLATFORMS=cuda JAX_DEFAULT_MATMUL_PRECISION=highest python -m pytest -q -n 0 tests/golden tests/losses
  run device nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
  run step_cifar python -m benchmarks.step --preset=cifar --product=8192 --convolutions --real --peer=torch --torch_compile
  run step_imagenet python -m benchmarks.step --preset=imagenet --product=8192 --kinds=two_crop,logo_joint
  run step_remat python -m benchmarks.step --preset=imagenet --product=8192 --kinds=logo_joint --remat
  run operations_cifar python -m benchmarks.top_operations --preset=cifar --method=simsiam
  run operations_imagenet python -m benchmarks.top_operations --preset=imagenet
  run input python -m benchmarks.input
  run start python -m benchmarks.startup
  run knn python -m benchmarks.knn --bank=50000 --queries=10000 --dim=512 --k=200 --peer=torch
  run transfer python -m benchmarks.transfer --synthetic 3000 512 100 --condition 1e3
  run data python -m logo_jax.prepare cifar10
  run study python -m logo_jax.sweep --sweep=configs/study/cifar10_gpu.py --out="$out/study" --seeds=1 --config.train.num_epochs=10
fi
finish "What was measured on a GPU"
