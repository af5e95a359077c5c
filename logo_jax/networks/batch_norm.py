"""Batch normalization with separate statistics for each view and group of images.

As in PyTorch, epsilon is 1e-5, running statistics move by 0.1 per update, and the
running variance is the unbiased one.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class BatchNorm(nn.Module):
    """Normalizes each view of a stack [v, b, ..., c] by its own statistics.

    The result equals that of views which pass one after another: each view is
    normalized alone, and the running statistics are updated once per view, in order.

    Attributes:
        axis_name: device axis over which statistics are shared. None: each device uses
            its own statistics, and the train step averages the running statistics.
        splits: number of equal, contiguous groups of the batch with their own
            statistics, as if each group were on its own device; running statistics are
            updated with the mean over groups.
        use_scale: whether to learn a scale.
        zero_scale: whether the scale is initialized to 0 instead of 1.
        use_bias: whether to learn a bias.
        momentum: fraction of the running statistics that each view keeps.
        epsilon: added to the variance.
        dtype: dtype of the output; statistics are always float32.

    Source: torch.nn.BatchNorm2d; groups as in facebookresearch/moco's CIFAR-10 notebook
        (SplitBatchNorm).
    """

    axis_name: str | None = None
    splits: int = 1
    use_scale: bool = True
    zero_scale: bool = False
    use_bias: bool = True
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns x, normalized.

        In training, x is [v, b, ..., c], and the running statistics are updated.
        """
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        first = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
        scale = self._param("scale", self.use_scale, first, channels)
        bias = self._param("bias", self.use_bias, nn.initializers.zeros, channels)
        if not train:
            mean = _along_last(running_mean.value, x.ndim)
            var = _along_last(running_var.value, x.ndim)
            return self._normalize(x, mean, var, scale, bias)
        groups = self._group(x)
        mean, var, count = self._statistics(groups)
        if not self.is_initializing():
            unbiased = var * (count / max(1, count - 1))
            running_mean.value = self._move(running_mean.value, mean)
            running_var.value = self._move(running_var.value, unbiased)
        if self.axis_name is not None:  # so that their gradients are added up together
            moments = jnp.stack([mean, var])
            mean, var = jax.lax.pcast(moments, self.axis_name, to="varying")
        return self._normalize(groups, mean, var, scale, bias).reshape(x.shape)

    def _param(self, name, used, init, channels):
        """Returns a learned vector [channels], or None if it is not used."""
        return self.param(name, init, (channels,)) if used else None

    def _group(self, x):
        """Reshapes [v, b, ..., c] to [v, splits, b / splits, ..., c]."""
        views, batch = x.shape[:2]
        if batch % self.splits:
            raise ValueError(
                f"batch_norm=split:{self.splits} needs a batch per device divisible by "
                f"{self.splits}, not {batch}; change data.batch_size"
            )
        return x.reshape(views, self.splits, batch // self.splits, *x.shape[2:])

    def _statistics(self, groups):
        """Returns mean and variance [v, splits, 1..., c] and the number of values."""
        axes = tuple(range(2, groups.ndim - 1))
        values = groups.astype(jnp.float32)
        count = math.prod(groups.shape[a] for a in axes)
        mean = values.mean(axes, keepdims=True)
        var = jnp.square(values - mean).mean(axes, keepdims=True)
        if self.axis_name is None:
            return mean, var, count
        # One exchange has both, because a small exchange takes as long as its latency.
        moments = jnp.stack([mean, var])
        moments = jax.lax.all_gather(moments, self.axis_name, to="invarying")
        mean, var = moments.mean(0)
        var = var + jnp.square(moments[:, 0] - mean[None]).mean(0)
        count *= jax.lax.axis_size(self.axis_name)
        return mean, var, count

    def _move(self, running, batch_value):
        """Returns the running statistics after one update per view, in order."""
        views, channels = batch_value.shape[0], batch_value.shape[-1]
        of_view = batch_value.reshape(views, self.splits, channels).mean(1)
        age = np.arange(views - 1, -1, -1)
        weights = jnp.asarray((1 - self.momentum) * self.momentum**age, jnp.float32)
        return self.momentum**views * running + weights @ of_view

    def _normalize(self, x, mean, var, scale, bias):
        """Computes (x - mean) / sqrt(var + epsilon) * scale + bias in float32."""
        factor = jax.lax.rsqrt(var + self.epsilon)
        if scale is not None:
            factor = factor * _along_last(scale, x.ndim)
        y = (x.astype(jnp.float32) - mean) * factor
        if bias is not None:
            y = y + _along_last(bias, x.ndim)
        return y.astype(self.dtype)


class LayerNorm(nn.Module):
    """Layer normalization with the interface of `BatchNorm`; `train` has no effect.

    Attributes:
        dtype: dtype of the output.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns x, normalized over its last axis."""
        del train
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)


def _along_last(vector, ndim):
    """Reshapes a vector [c] to [1, ..., 1, c]."""
    return vector.reshape((1,) * (ndim - 1) + (-1,))
