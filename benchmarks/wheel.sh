#!/usr/bin/env bash
# Tests the packages: builds wheel and sdist, checks them with twine, installs the wheel in
# a new environment, and runs each command from a folder outside the repository. Takes
# minutes, mostly for pip, which downloads the dependencies. Exit code 1 if a command fails.
#   PYTHON=python3.13 bash benchmarks/wheel.sh [STEPS]
set -euo pipefail
steps=${1:-4}
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

git archive HEAD | (mkdir "$scratch/source" && tar -x -C "$scratch/source")
"$python" -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install -q build twine
"$scratch/tools/bin/python" -m build -q -o "$scratch/dist" "$scratch/source"
"$scratch/tools/bin/twine" check --strict "$scratch"/dist/*
ls -sh "$scratch/dist"
rm -r "$scratch/source" "$scratch/tools"

"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -q "$scratch"/dist/*.whl
"$scratch/venv/bin/pip" list | grep -i -E "^(jax|flax|optax|orbax-checkpoint|grain) "

mkdir "$scratch/elsewhere" && cd "$scratch/elsewhere"
unset PYTHONPATH
run() {
  echo "+ python -m $*"
  "$scratch/venv/bin/python" -m "$@"
}

for name in main prepare evaluate embed predict convert report sweep doctor; do
  run "logo_jax.$name" --help >help.txt
  test -s help.txt
done
run logo_jax.main --config=quickstart --workdir=run "--config.train.num_steps=$steps"
run logo_jax.evaluate --workdir=run
run logo_jax.doctor --config=configs/cifar10_moco.py:baseline --steps=0 || test $? -eq 2
run logo_jax.sweep --sweep=sweeps/stl10_crop_ratio --out=table --table | tail -n 1
run logo_jax.main --config=quickstar --workdir=other || test $? -eq 2
test ! -e other
