"""A moving average of the encoder's weights, for any method; it changes no training.

The average has running statistics of its own: the average, with the same weights, of
those of the encoder. Running statistics belong to the parameters that they were
measured with, so those of the last step alone would not fit averaged parameters. Other
code does the same (https://github.com/huggingface/pytorch-image-models, ModelEmaV2;
EfficientNet's for TPUs), or measures them again in a pass over the training images,
which a checkpoint during training would have to repeat.
"""

from typing import Any

import optax

from logo_jax.methods.base import EMA_ENCODER, ENCODER, TrainState


def with_average(state: TrainState) -> TrainState:
    """Returns a state whose memory has the average, which starts at the encoder."""
    encoder = state.variables(ENCODER)
    return state.replace(
        memory=state.memory | {EMA_ENCODER: encoder["params"]},
        batch_stats=state.batch_stats | {EMA_ENCODER: encoder["batch_stats"]},
    )


def moved(state: TrainState, decay: float) -> TrainState:
    """Returns the state after a step, with the average moved toward the encoder.

    Args:
        state: a state with an average.
        decay: fraction of the average that is kept, from 0 to 1.
    """
    new, old = state.variables(ENCODER), state.variables(EMA_ENCODER)
    average: Any = optax.incremental_update(new, old, 1 - decay)
    return state.replace(
        memory=state.memory | {EMA_ENCODER: average["params"]},
        batch_stats=state.batch_stats | {EMA_ENCODER: average["batch_stats"]},
    )
