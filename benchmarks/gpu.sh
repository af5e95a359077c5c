#!/usr/bin/env bash
# Runs all benchmarks that need a GPU: steps compared with PyTorch's, the longest
# operations of a step, input, startup, exact kNN, logistic regression. Each writes a log
# to OUT, whose last line is JSON. If a benchmark fails, the script continues, and its
# exit code is 1.
#   pip install -e ".[cuda,bench]"
#   bash benchmarks/gpu.sh OUT          sizes for an H200
#   bash benchmarks/gpu.sh OUT small    small sizes, which take minutes on a CPU
set -uo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")/.."
size=${2:-full}
python=${PYTHON:-python}
mkdir -p "$out"
failed=()

run() {
  local name=$1
  shift
  echo "$name: $*"
  "$python" -m "$@" >"$out/$name.log" 2>"$out/$name.err" || failed+=("$name")
}

if [ "$size" = small ]; then
  tiny=(--backbone=resnet10 --width=4 --batch_size=4 --rounds=1 --product=64)
  run step benchmarks.step "${tiny[@]}" --methods=simsiam --kinds=two_crop,logo_joint --real
  run operations benchmarks.top_operations --backbone=resnet10 --width=4 --batch_size=4
  run input benchmarks.input --images=2 --canvas=16 --global_size=12 --local_size=12 --rounds=1 --no_step
  run start benchmarks.startup --rounds=1
  run knn benchmarks.knn --bank=500 --queries=100 --dim=16 --k=20
  run transfer benchmarks.transfer --synthetic 200 16 5 --strengths=2
else
  run step_cifar benchmarks.step --preset=cifar --product=8192 --convolutions --real --peer=torch --torch_compile
  run step_imagenet benchmarks.step --preset=imagenet --product=8192 --kinds=two_crop,logo_joint
  run step_remat benchmarks.step --preset=imagenet --product=8192 --kinds=logo_joint --remat
  run operations_cifar benchmarks.top_operations --preset=cifar --method=simsiam
  run operations_imagenet benchmarks.top_operations --preset=imagenet
  run input benchmarks.input
  run start benchmarks.startup
  run knn benchmarks.knn --bank=50000 --queries=10000 --dim=512 --k=200 --peer=torch
  run transfer benchmarks.transfer --synthetic 3000 512 100 --condition 1e3
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/device.csv" 2>&1 || true
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}; see $out/*.err" >&2; exit 1; }
