"""Commands that tests run in one process share the compiled programs of equal configs.

A command is usually a process of its own and compiles everything it runs. Here, a test
trains, resumes and evaluates one config, and others train the same config.
"""

import dataclasses
from typing import Any

import jax
import pytest

from logo_jax.evaluation.knn_monitor import make_encode_with
from logo_jax.experiment import experiment, networks, pretrained
from logo_jax.experiment.spec import ExperimentSpec
from logo_jax.visualization import run_crops
from logo_jax.visualization.run_crops import make_cut


@pytest.fixture(autouse=True, scope="package")
def fixture_shared_programs():
    """Replaces what makes programs by functions that return those made before."""
    made: dict[Any, Any] = {}
    make_step, trace = experiment.compiled_step, networks.trace_backbone

    def compiled_step(spec, mesh, rollbacks=0):
        new = make_step(spec, mesh, rollbacks)
        first = made.setdefault(("step", mesh, *fields_of(spec)), new)
        return new._replace(compiled=first.compiled)  # with keys of its own

    def compiled_init(spec):
        return made.setdefault(("init", *fields_of(spec)), jax.jit(spec.init))

    def cut(spec):
        looks = spec.config.crops, spec.config.augment
        return made.setdefault(("cut", str(looks)), make_cut(spec))

    def trace_backbone(backbone, *where):
        key = "traced", repr(backbone), str(where)
        if key not in made:  # after an error, the next call raises it again
            made[key] = trace(backbone, *where)

    def encode_with(encoder, prepare, *placed):
        key = "encode", repr(encoder), repr(prepare), *placed
        return made.setdefault(key, make_encode_with(encoder, prepare, *placed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "compiled_step", compiled_step)
        patch.setattr(ExperimentSpec, "compiled_init", property(compiled_init))
        patch.setattr(run_crops, "make_cut", cut)
        patch.setattr(networks, "trace_backbone", trace_backbone)
        for module in (experiment, pretrained):
            patch.setattr(module, "make_encode_with", encode_with)
        yield


def fields_of(spec):
    """Returns everything on which the programs of a spec depend."""
    fields = dataclasses.asdict(spec.config)
    fields["data"] = spec.config.data.batch_size
    del fields["seed"]
    methods = spec.method, getattr(spec.method, "base", None)
    classes = [getattr(method, "num_classes", 0) for method in methods]
    schedule = spec.schedule
    return str(fields), len(schedule.seeds), schedule.steps_per_epoch, str(classes)
