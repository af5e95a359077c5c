"""Weighted k-nearest neighbors, as evaluated while training."""

from logo_jax.experiment import knn_monitor, load_data
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.protocols.base import EvalRequest, EvalResult, Protocol


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult:
    """Weighted kNN of the test set among the training set, at the run's (k, T).

    Option `trivial_baselines`: adds what pixels, mean colors and the untrained encoder
    reach. Of several seeds, values are an array each.

    Raises:
        ValueError: where labels are missing.
    """
    data = load_data(frozen.spec.config.data)
    monitor = knn_monitor(frozen.spec, data, frozen.mesh)
    if monitor is None:
        raise ValueError(
            "kNN needs labels for the training and the test set; this data set has none"
        )
    values = monitor(frozen.state)
    if request.options.get("trivial_baselines"):
        found = monitor.trivial_baselines(frozen.untrained().state)
        values |= {f"baseline/{name}": value for name, value in found.items()}
    return EvalResult(
        protocol="knn: weighted by exp(cosine / T), exact",
        values=values,
        splits={"bank": len(monitor.bank), "queries": len(monitor.queries)},
        settings={"k, T": monitor.settings},
    )


PROTOCOL = Protocol("knn", evaluate, reads=("trivial_baselines",), all_seeds=True)
