"""Counts the bytes that devices exchange in a step; extrapolates scaling efficiency.

    python -m benchmarks.scaling --batch=32 --step_seconds=0.25
    python -m benchmarks.scaling --processes

The steps of full-size configs are traced for 1 to 256 simulated CPU devices with
`--batch` images each, on given crops, and never run. The bytes are those of the traced
program; XLA merges its collective operations but does not change the bytes (the tests
check compiled programs; `--processes` compiles a tiny step for 4 devices of 1, 2 and 4
processes).

The efficiency is extrapolated, and a lower bound: a step of `--step_seconds` (or of the
program's FLOPs at `--tflops`) is followed by all collective operations, without
overlap, as rings at the bandwidth that vendors state for one direction of a device's
links. Latency is not included. Prints a table and one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

SIMULATED = "--xla_force_host_platform_device_count"
if __name__ == "__main__" and SIMULATED not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {SIMULATED}=256"
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.processes import DEVICES, FIELDS, free_port
from logo_jax import configs
from logo_jax.experiment import make_spec
from logo_jax.methods.base import Batch
from logo_jax.parallel import processes
from logo_jax.parallel.mesh import batch_sharding, make_mesh
from logo_jax.parallel.programs import bytes_by_kind, collectives
from logo_jax.training.train_step import make_train_step

CONFIGS = (
    "imagenet100_r50_moco:baseline",
    "imagenet100_r50_moco:paper",
    "imagenet100_r50_moco:released",
    "imagenet100_r50_simsiam:paper",
)
LINKS = {  # bytes per second that a device sends, as stated by the vendors
    "NVLink 4 (H100, 900 GB/s both ways)": 450e9,
    "TPU v5e ICI (400 GB/s both ways)": 200e9,
    "InfiniBand NDR (400 Gb/s)": 50e9,
}
TFLOPS = 100.0  # a tenth of the bfloat16 peak of an H100: an assumption
Bytes = dict[str, int]


def traced(
    config: str, fields: Mapping[str, Any], num_devices: int
) -> jax.stages.Lowered:
    """Traces the step of a config, FILE:VARIANT, on crops for `num_devices` devices."""
    spec = make_spec(configs.load(config, fields), num_devices=num_devices)
    mesh = make_mesh(jax.devices()[:num_devices])
    train_step = make_train_step(
        spec.method.update,
        lambda key, examples, epoch: examples,
        mesh,
        spec.keys("crops", "steps"),
    )
    crops = Batch(
        *(
            jax.ShapeDtypeStruct(
                (spec.config.data.batch_size, crop.count, crop.size, crop.size, 3),
                jnp.float32,
            )
            for crop in spec.crops.values()
        )
    )
    state = jax.eval_shape(spec.init)
    program = train_step.trace(
        _on(NamedSharding(mesh, P()), state),
        _on(batch_sharding(mesh), crops),
        jnp.int32(0),
    )
    return program.lower()


def _on(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def exchanged(lowered: jax.stages.Lowered) -> Bytes:
    """Returns the bytes of collective operations of a traced program, by kind."""
    text = lowered.as_text(dialect="hlo", debug_info=True)
    assert text is not None  # CPU programs have a text
    return bytes_by_kind(collectives(text))


def sent(found: Bytes, num_devices: int) -> float:
    """Returns the bytes that a device sends if sums and gathers use rings.

    >>> sent({"all-reduce": 100, "all-gather": 100, "collective-permute": 7}, 4)
    232.0
    """
    others = (num_devices - 1) / num_devices
    factors = {"all-reduce": 2 * others, "all-gather": others}
    return sum(size * factors.get(kind, 1) for kind, size in found.items())


def rows(config: str, flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of devices."""
    fields = {"encoder.dtype": "bfloat16"}
    if "moco" in config:
        fields["method.queue_size"] = 65_536
    seconds = flags.step_seconds or flops(config, fields, flags.batch) / (
        flags.tflops * 1e12
    )
    for count in flags.devices:
        found = exchanged(
            traced(config, fields | {"data.batch_size": count * flags.batch}, count)
        )
        wire = sent(found, count)
        yield {
            "config": config,
            "devices": count,
            "bytes": found,
            "step_seconds": round(seconds, 4),
            "efficiency": {
                name: round(seconds / (seconds + wire / rate), 3)
                for name, rate in LINKS.items()
            },
        }


def flops(config: str, fields: Mapping[str, Any], batch: int) -> float:
    """Returns the FLOPs of a step on one device."""
    lowered = traced(config, {**fields, "data.batch_size": batch}, 1)
    return lowered.cost_analysis()["flops"]


def of_processes(counts: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yields the bytes of the compiled tiny step for each number of processes.

    Raises:
        RuntimeError: if a process fails.
    """
    for count in counts:
        environ = os.environ | {"XLA_FLAGS": f"{SIMULATED}={DEVICES // count}"}
        port = free_port()
        started = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.scaling",
                    f"--join={port},{count},{i}",
                ],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(count)
        ]
        outputs = [process.communicate() for process in started]
        if any(process.returncode for process in started):
            raise RuntimeError("\n".join(errors for _, errors in outputs))
        yield {"processes": count, "bytes": json.loads(outputs[0][0].splitlines()[-1])}


def join(port: int, count: int, number: int) -> None:
    """Runs one of the processes: compiles with the others and prints the bytes."""
    address = f"127.0.0.1:{port}" if count > 1 else None
    identity = {"num_processes": count, "process_id": number if address else None}
    with processes.join_cluster(os.environ, coordinator=address, **identity):
        compiled = traced("cifar10_moco:logo", FIELDS, DEVICES).compile()
        print(json.dumps(bytes_by_kind(collectives(compiled.as_text()))))


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--configs", nargs="+", default=CONFIGS, help="FILE:VARIANT")
    parser.add_argument("--devices", type=_numbers, default=[1, 2, 4, 8, 256])
    parser.add_argument("--batch", type=int, default=32, help="images per device")
    parser.add_argument(
        "--step_seconds",
        type=float,
        default=0.0,
        help="measured seconds per step; default: computed from --tflops",
    )
    parser.add_argument(
        "--tflops", type=float, default=TFLOPS, help="assumed TFLOP/s of a device"
    )
    parser.add_argument("--processes", action="store_true")
    parser.add_argument("--join", type=_numbers, help=argparse.SUPPRESS)
    flags = parser.parse_args(arguments)
    if flags.join:
        return join(*flags.join)
    table = []
    if flags.processes:
        found = of_processes((1, 2, 4))
    else:
        found = (row for config in flags.configs for row in rows(config, flags))
    for row in found:
        print(*(f"{key}: {value}" for key, value in row.items()), sep="  ", flush=True)
        table.append(row)
    print(json.dumps({"jax": jax.__version__, "batch": flags.batch, "rows": table}))
    return None


if __name__ == "__main__":
    main()
