#!/bin/bash
# One process a host of a Cloud TPU slice:  bash docs/launch/tpu_pod.sh
# Run it where gcloud is logged in. The slice's metadata tell the processes of one
# another; nothing else is needed.
set -euo pipefail

NAME=logo-jax                      # of the slice, made if absent
ZONE=us-central2-b
TYPE=v4-32                         # 4 hosts
VERSION=tpu-ubuntu2204-base        # needs Python 3.11 or newer as $PYTHON
PYTHON=python3.11
CODE=https://github.com/OWNER/logo_jax.git
DATA=/mnt/data/imagenet100         # on every host: a mounted bucket or disk, or a copy
RUN=/mnt/runs/imagenet100_moco     # the first host alone reads and writes it
CONFIG=configs/imagenet100_moco.py

on_every_host() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" > /dev/null 2>&1 ||
  gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" \
    --accelerator-type="$TYPE" --version="$VERSION"

on_every_host "
  test -d logo_jax || git clone -q $CODE logo_jax
  cd logo_jax
  test -d .venv || $PYTHON -m venv .venv
  .venv/bin/pip install -q -e '.[tpu]'"

# data.batch_size is that of all chips together, a multiple of their number.
# The same command again resumes from the newest checkpoint.
on_every_host "
  cd logo_jax && .venv/bin/python -m logo_jax.main \
    --config=$CONFIG --workdir=$RUN \
    --config.data.source=folder --config.data.path=$DATA"

# When done:  gcloud compute tpus tpu-vm delete NAME --zone=ZONE
