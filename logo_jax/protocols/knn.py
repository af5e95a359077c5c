"""Protocol knn: weighted k-nearest neighbors, as evaluated during training."""

from logo_jax.experiment import knn_monitor
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.protocols.base import EvalRequest, EvalResult, Protocol


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult:
    """Evaluates weighted kNN with the training set as bank, at the config's (k, T).

    The option `knn` is in the config already (`runs.evaluation`). The option
    `trivial_baselines` adds the accuracies of raw pixels, of mean colors and of the
    untrained encoder. With several seeds, each value is an array.

    Raises:
        ValueError: if the training set or the test set has no labels.
    """
    data = frozen.data()
    monitor = knn_monitor(frozen.spec, data, frozen.mesh)
    if monitor is None:
        raise ValueError(
            "kNN needs a labeled training set and a labeled test set; give a data set "
            "that has both"
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


PROTOCOL = Protocol("knn", evaluate, reads=("trivial_baselines", "knn"), all_seeds=True)
