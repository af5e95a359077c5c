#!/bin/bash
# One process a GPU, on as many nodes as are asked for:  sbatch docs/launch/slurm.sh
# Slurm's variables tell the processes of one another; nothing else is needed.
#SBATCH --job-name=logo_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4        # as many as --gpus-per-node
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
set -euo pipefail

CODE=$HOME/logo_jax                # the clone, with its .venv; on a disk all nodes see
DATA=$HOME/data/imagenet100        # the same on all nodes: one disk, or a copy on each
RUN=$HOME/runs/imagenet100_moco    # the first process alone reads and writes it
CONFIG=configs/imagenet100_moco.py

# Task I of a node takes its GPU I. So every task must see all GPUs of its node:
# --gpus-per-task would show it one, under the number 0, and all but the first fail.
# data.batch_size is that of all GPUs together, a multiple of their number.
# Submitted again, the same job resumes from the newest checkpoint.
cd "$CODE"
srun --gpu-bind=none --kill-on-bad-exit=1 \
  .venv/bin/python -m logo_jax.main \
  --config="$CONFIG" --workdir="$RUN" \
  --config.data.source=folder --config.data.path="$DATA"
