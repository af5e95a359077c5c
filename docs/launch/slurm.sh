#!/bin/bash
# One process per GPU, on any number of nodes:  sbatch docs/launch/slurm.sh
# The processes find each other through the environment variables of Slurm.
#SBATCH --job-name=logo_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4        # equal to --gpus-per-node
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120          # seconds before the limit: all tasks save and end
set -euo pipefail

CODE=$HOME/logo_jax                # the clone with its .venv, on a disk shared by all nodes
DATA=$HOME/data/imagenet100        # the same path on all nodes: a shared disk, or copies
RUN=$HOME/runs/imagenet100_moco    # used by the first process only
CONFIG=configs/imagenet100_moco.py

# Task I of a node uses GPU I of the node, so every task must see all GPUs of its node.
# With --gpus-per-task each task would see one GPU, with index 0, and all tasks but the
# first would fail.
# data.batch_size is the batch size over all GPUs, a multiple of their number.
# If the job is submitted again, it resumes where it was stopped. Several jobs that are
# submitted with --dependency=singleton run one after the other.
cd "$CODE"
srun --gpu-bind=none --kill-on-bad-exit=1 \
  .venv/bin/python -m logo_jax.main \
  --config="$CONFIG" --workdir="$RUN" \
  --config.data.source=folder --config.data.path="$DATA"
