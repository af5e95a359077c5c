"""Self-supervised learning from local and global crops (LoGo) in JAX.

The names in `__all__` are imported at their first use, so that `import logo_jax` takes
no time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logo_jax.api import (
        ImageClassifier,
        ImageEncoder,
        InputError,
        Run,
        load_classifier,
        load_encoder,
        pretrain,
    )

__version__ = "0.2.0"
__all__ = [
    "ImageClassifier",
    "ImageEncoder",
    "InputError",
    "Run",
    "load_classifier",
    "load_encoder",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'logo_jax' has no attribute {name!r}")
    from logo_jax import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
