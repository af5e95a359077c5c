#!/bin/bash
# One process per host of a Cloud TPU slice:  bash docs/launch/tpu_pod.sh
# Run this script where gcloud is logged in. The processes find each other through the
# metadata of the slice.
set -euo pipefail

NAME=logo-jax                      # name of the slice, which is created if absent
ZONE=us-central2-b
TYPE=v4-32                         # 4 hosts
VERSION=tpu-ubuntu2204-base
PYTHON=3.12                        # installed by uv, because the image has Python 3.10
CODE=https://github.com/OWNER/logo_jax.git
DATA=/mnt/data/imagenet100         # on every host: a mounted bucket or disk, or a copy
RUN=/mnt/runs/imagenet100_moco     # used by the first host only
CONFIG=configs/imagenet100_moco.py

on_every_host() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" > /dev/null 2>&1 ||
  gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" \
    --accelerator-type="$TYPE" --version="$VERSION"

on_every_host "
  set -e
  test -d logo_jax || git clone -q '$CODE' logo_jax
  cd logo_jax
  if ! test -x .venv/bin/pip; then
    curl -LsSf https://astral.sh/uv/install.sh | sh
    ~/.local/bin/uv venv --clear --seed --python $PYTHON .venv
  fi
  .venv/bin/pip install -q -e '.[tpu]'"

# data.batch_size is the batch size over all chips, a multiple of their number.
# If a host is preempted, all hosts save the same step and end. The same command, run
# again, resumes from the newest checkpoint.
on_every_host "
  cd logo_jax && .venv/bin/python -m logo_jax.main \
    --config='$CONFIG' --workdir='$RUN' \
    --config.data.source=folder --config.data.path='$DATA'"

# To delete the slice:  gcloud compute tpus tpu-vm delete NAME --zone=ZONE
