"""Batch normalization with separate statistics for each view and group of images.

As in PyTorch, epsilon is 1e-5, running statistics move by 0.1 per update, and the
running variance is the unbiased one.

The gradient is written out, because that of automatic differentiation reads and writes
more, and batch norm is bound by the memory.
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
            standard = _centered(x, mean) * jax.lax.rsqrt(var + self.epsilon)
            return self._scale_and_shift(standard, scale, bias)
        groups = self._group(x)
        standard, mean, var = _standardize(groups, self.axis_name, self.epsilon)
        if not self.is_initializing():
            count = _num_values(groups, self.axis_name)
            unbiased = var * (count / max(1, count - 1))
            running_mean.value = self._move(running_mean.value, mean)
            running_var.value = self._move(running_var.value, unbiased)
        return self._scale_and_shift(standard, scale, bias).reshape(x.shape)

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

    def _move(self, running, batch_value):
        """Returns the running statistics after one update per view, in order."""
        views, channels = batch_value.shape[0], batch_value.shape[-1]
        of_view = batch_value.reshape(views, self.splits, channels).mean(1)
        age = np.arange(views - 1, -1, -1)
        weights = jnp.asarray((1 - self.momentum) * self.momentum**age, jnp.float32)
        # by default, a GPU or TPU rounds the factors of a product to fewer bits
        new = jnp.matmul(weights, of_view, precision="highest")
        return self.momentum**views * running + new

    def _scale_and_shift(self, standard, scale, bias):
        """Multiplies standardized values by the scale and adds the bias."""
        y = standard
        if scale is not None:
            y = y * _along_last(scale, y.ndim)
        if bias is not None:
            y = y + _along_last(bias, y.ndim)
        return y.astype(self.dtype)


def _standardized(groups, axis_name, epsilon):
    """Subtracts each group's mean and divides by its standard deviation, in float32.

    Args:
        groups: values [v, s, b, ..., c]; each of the v x s groups has own statistics.
        axis_name: device axis over which statistics are shared, or None.
        epsilon: added to the variance.

    Returns:
        The standardized values, and mean and variance [v, s, 1..., c]. The gradient of
        mean and variance is not passed on.
    """
    return _standardize_forward(groups, axis_name, epsilon)[0]


def _standardize_forward(groups, axis_name, epsilon):
    """Returns the results of `_standardized`, and what its gradient needs."""
    mean = _mean_over_group(groups.astype(jnp.float32))
    var = _mean_over_group(jnp.square(_centered(groups, mean)))
    if axis_name is not None:
        # One exchange has both, because a small exchange takes as long as its latency.
        moments = jnp.stack([mean, var])
        moments = jax.lax.all_gather(moments, axis_name, to="invarying")
        mean, var = moments.mean(0)
        var = var + jnp.square(moments[:, 0] - mean[None]).mean(0)
    rate = jax.lax.rsqrt(var + epsilon)
    return (_centered(groups, mean) * rate, mean, var), (groups, mean, rate)


def _standardize_backward(axis_name, epsilon, saved, grads):
    """Returns the gradient with respect to the values."""
    del epsilon
    groups, mean, rate = saved
    grad, *_ = grads
    standard = _centered(groups, mean) * rate
    means = jnp.stack([_mean_over_group(grad), _mean_over_group(grad * standard)])
    if axis_name is not None:
        means = jax.lax.pmean(means, axis_name)
    of_mean, of_spread = means
    moved = (grad - of_mean - standard * of_spread) * rate
    return (moved.astype(groups.dtype),)


_standardize = jax.custom_vjp(_standardized, nondiff_argnums=(1, 2))
_standardize.defvjp(_standardize_forward, _standardize_backward)


def _centered(x, mean):
    """Returns the differences to the mean, float32."""
    return x.astype(jnp.float32) - mean


def _mean_over_group(values):
    """Returns the means [v, s, 1..., c] of values [v, s, b, ..., c]."""
    return values.mean(tuple(range(2, values.ndim - 1)), keepdims=True)


def _num_values(groups, axis_name):
    """Returns the number of values, over all devices, that share a mean."""
    count = math.prod(groups.shape[2:-1])
    return count if axis_name is None else count * jax.lax.axis_size(axis_name)


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
