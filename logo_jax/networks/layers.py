"""Linear layers and convolutions, initialized as in PyTorch and torchvision."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from logo_jax.networks._cpu import convolve

# uniform in +-1/sqrt(fan_in), torch.nn.Linear's default
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """A linear layer; weights and bias are initialized uniformly in +-1/sqrt(inputs).

    Attributes:
        features: size of the output.
        use_bias: whether to add a bias.
        kernel_init: initializer of the weights.
        dtype: dtype of the computation; parameters are float32.

    Source: torch.nn.Linear.
    """

    features: int
    use_bias: bool = True
    kernel_init: Callable[..., jax.Array] = torch_uniform
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x @ kernel + bias for x [..., inputs]."""
        inputs = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features))
        y = jnp.dot(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        bias = self.param("bias", _uniform(inputs**-0.5), (self.features,))
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def _uniform(bound):
    """Returns an initializer that is uniform in +-bound."""
    return lambda key, shape: jax.random.uniform(
        key, shape, minval=-bound, maxval=bound
    )


# He normal by the fan-out, with the gain of a ReLU. Source: torchvision's ResNet
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(
    features: int,
    size: int,
    stride: int,
    dtype: Any,
    name: str,
    kernel_init: Callable[..., jax.Array] = he_normal,
) -> nn.Conv:
    """Returns a convolution without bias, with torchvision's padding (size - 1) / 2."""
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=(size - 1) // 2,
        use_bias=False,
        kernel_init=kernel_init,
        dtype=dtype,
        conv_general_dilated=convolve,
        name=name,
    )
