"""Protocol knn: weighted k-nearest neighbors, as evaluated during training."""

import dataclasses

from logo_jax.data.load import ExperimentData
from logo_jax.experiment import ExperimentSpec, knn_monitor
from logo_jax.experiment.pretrained import FrozenEncoder
from logo_jax.protocols.base import LABELS, EvalRequest, EvalResult, Protocol


def evaluate(frozen: FrozenEncoder, request: EvalRequest) -> EvalResult:
    """Evaluates weighted kNN with the training set as bank, at the config's (k, T).

    The option `knn` is in the config already (`runs.evaluation`). Without it, a part of
    the labels has at most as many neighbors as labeled images. The option
    `trivial_baselines` adds the accuracies of raw pixels, of mean colors and of the
    untrained encoder. With several seeds, each value is an array.

    Raises:
        ValueError: if the training set or the test set has no labels.
    """
    data = frozen.data()
    fits = data.few is None or "knn" in request.options
    spec = frozen.spec if fits else _with_fewer_neighbors(frozen.spec, data)
    monitor = knn_monitor(spec, data, frozen.mesh)
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


def _with_fewer_neighbors(spec: ExperimentSpec, data: ExperimentData) -> ExperimentSpec:
    """Returns a spec in which no number of neighbors exceeds the labeled images."""
    most = len(data.train)
    pairs = ((min(k, most), t) for k, t in spec.config.monitor.knn)
    monitor = dataclasses.replace(spec.config.monitor, knn=tuple(dict.fromkeys(pairs)))
    config = dataclasses.replace(spec.config, monitor=monitor)
    return dataclasses.replace(spec, config=config)


PROTOCOL = Protocol(
    "knn", evaluate, reads=("trivial_baselines", "knn", *LABELS), all_seeds=True
)
