"""Devices for which a program can be compiled although they are not here.

Memory and rates are those that the vendors state; no device was measured.
"""

import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from logo_jax.parallel.mesh import make_mesh

GIB = 2**30
FORMS = "e.g. v5e, v5e:2x2, 8xv6e, h100 or 8xh100"


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of device.

    Attributes:
        name: name on the command line.
        memory: bytes of its memory.
        usable: fraction of the memory that a program can use: on a GPU that which JAX
            reserves unless XLA_PYTHON_CLIENT_MEM_FRACTION is set.
        bandwidth: bytes that it reads and writes in a second, at most.
        float32: floating-point operations in a second of matrix products of float32 at
            JAX's default precision: one pass of bfloat16 on a TPU, TensorFloat-32 on a
            GPU.
        bfloat16: the same for bfloat16.
    """

    name: str
    memory: int
    usable: float
    bandwidth: float
    float32: float
    bfloat16: float


@dataclasses.dataclass(frozen=True)
class Tpu(Chip):
    """A generation of TPUs.

    Attributes:
        axes: axes of the grid of chips.
        config: libtpu's name for one device a chip.
    """

    axes: int
    config: str
    extra = "tpu"
    module = "libtpu"

    def shape(self, count: int) -> str:
        """Returns the grid of a number of chips, as square as possible, such as 2x4."""
        sides = []
        for axes in range(self.axes, 0, -1):
            side = next(
                i for i in range(round(count ** (1 / axes)), 0, -1) if count % i == 0
            )
            sides.append(side)
            count //= side
        return "x".join(map(str, sorted(sides, reverse=self.axes == 3)))

    def devices(self, shape: str) -> list[Any]:
        """Returns the devices of a grid of chips, such as "2x2"."""
        alone = math.prod(map(int, shape.split("x"))) == 1
        host = {"chips_per_host_bounds": (1, 1, 1)} if alone else {}
        for name, value in _LIBTPU.items():
            os.environ.setdefault(name, value)
        return topologies.get_topology_desc(
            f"{self.name}:{shape}", "tpu", chip_config_name=self.config, **host
        ).devices


@dataclasses.dataclass(frozen=True)
class Gpu(Chip):
    """A model of NVIDIA's GPUs.

    Attributes:
        title: name that the driver gives it.
        capability: major compute capability.
        cores: number of streaming multiprocessors.
        fpus: float32 units of each.
        gigahertz: highest clock rate.
        cache: bytes of the second cache.
        shared: bytes of memory that the threads of a core share.
    """

    title: str
    capability: int
    cores: int
    fpus: int
    gigahertz: float
    cache: int
    shared: int
    extra = "aot-cuda"
    module = "jax_cuda13_plugin"

    def shape(self, count: int) -> str:
        """Returns the number of GPUs of a host."""
        return str(count)

    def devices(self, shape: str) -> list[Any]:
        """Returns the devices of one host with `shape` GPUs."""
        return topologies.get_topology_desc(
            "", "cuda", target_config=self._description(), topology=f"1x1x{shape}"
        ).devices

    def _description(self) -> str:
        """The GPU as XLA's GpuTargetConfigProto, in text.

        Source: openxla/xla@xla/backends/gpu/target_config/specs (h100_sxm, a100_sxm_80)
        """
        return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared}
  threads_per_core_limit: 2048
  core_count: {self.cores}
  fpus_per_core: {self.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {self.bandwidth:.0f}
  l2_cache_size: {self.cache}
  clock_rate_ghz: {self.gigahertz}
  device_memory_size: {self.memory}
  shared_memory_per_block_optin: {self.shared - 1024}
  cuda_compute_capability {{ major: {self.capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{self.title}"
"""


# libtpu needs them to compile without a TPU, several processes at the same time, and
# without lines about what it does not find
_LIBTPU = {
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def _tpu(name, memory, bandwidth, rate, axes, config="default"):
    """A generation of TPUs, of which libtpu lets a program use `memory` GiB."""
    bytes_, rate = int(memory * GIB), rate * 1e12
    return Tpu(name, bytes_, 1.0, bandwidth * 1e9, rate, rate, axes, config)


_HOPPER = {"capability": 9, "cores": 132, "fpus": 128, "gigahertz": 1.98}
_HOPPER |= {"cache": 52_428_800, "shared": 233_472}
_RATES = {"usable": 0.75, "float32": 494.5e12, "bfloat16": 989e12}
# Sources: cloud.google.com/tpu/docs (v4, v5e, v5p, v6e), of whole chips, with the
# memory that libtpu 0.0.42 allows; NVIDIA's data sheets (SXM, dense)
CHIPS: dict[str, Tpu | Gpu] = {
    chip.name: chip
    for chip in (
        _tpu("v4", 30.75, 1228, 275, 3, "megacore"),
        _tpu("v5e", 15.75, 819, 197, 2),
        _tpu("v5p", 95.74, 2765, 459, 3, "megacore"),
        _tpu("v6e", 31.25, 1640, 918, 2),
        Gpu(
            name="h100",
            memory=84_929_347_584,
            bandwidth=3.35e12,
            title="NVIDIA H100 80GB HBM3",
            **_RATES,
            **_HOPPER,
        ),
        Gpu(
            name="h200",
            memory=150_754_820_096,
            bandwidth=4.8e12,
            title="NVIDIA H200",
            **_RATES,
            **_HOPPER,
        ),
        Gpu(
            name="a100",
            memory=84_987_740_160,
            bandwidth=2.039e12,
            title="NVIDIA A100-SXM4-80GB",
            capability=8,
            cores=108,
            fpus=64,
            gigahertz=1.41,
            cache=41_943_040,
            shared=167_936,
            usable=0.75,
            float32=156e12,
            bfloat16=312e12,
        ),
    )
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind that are not here.

    Attributes:
        chip: the kind.
        mesh: the devices; programs can be compiled for them, and arrays cannot be on
            them.
    """

    chip: Tpu | Gpu
    mesh: Mesh

    @property
    def memory(self) -> float:
        """Bytes of a device that a program can use."""
        return self.chip.memory * self.chip.usable


def find_target(text: str) -> Target:
    """Returns the devices that a text names; the compiler of their kind is loaded.

    Args:
        text: a kind, for one device; a number and a kind, such as 8xh100; or a kind of
            TPU with a grid of chips, such as v5e:2x2.

    Raises:
        ValueError: if the text is not understood, the compiler is not installed, or it
            does not know such a grid.
    """
    chip, shape = _parse(text)
    if importlib.util.find_spec(chip.module) is None:
        raise ValueError(
            f"--target={text} needs the compiler of {chip.module}; run "
            f"pip install -e '.[{chip.extra}]'"
        )
    # other devices of this machine are left alone
    jax.config.update("jax_platforms", "cpu")
    try:
        return Target(chip, make_mesh(chip.devices(shape)))
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"--target={text} is refused by the compiler ({reason}); use {FORMS}"
        ) from error


def _parse(text: str) -> tuple[Tpu | Gpu, str]:
    """Returns the kind and the grid or number of devices.

    >>> [(chip.name, shape) for chip, shape in map(_parse, ("8xh100", "8xv6e", "v5p"))]
    [('h100', '8'), ('v6e', '2x4'), ('v5p', '1x1x1')]
    """
    form = re.fullmatch(r"(?:(\d+)x)?([a-z]\w+?)(?::(\d+(?:x\d+)+))?", text.lower())
    count, name, shape = form.groups() if form else (None, "", None)
    chip = CHIPS.get(name)
    if chip is None:
        raise ValueError(
            f"--target={text} must be one of {', '.join(CHIPS)}, with a number of "
            f"devices or a grid of TPUs; {FORMS}"
        )
    axes = len(shape.split("x")) if shape else 0
    if axes and (count or not isinstance(chip, Tpu) or axes != chip.axes):
        grid = "x".join("2" * chip.axes) if isinstance(chip, Tpu) else ""
        raise ValueError(
            f"--target={text} must be a number of devices or a grid that {name} has; "
            f"use e.g. 4x{name}" + (f" or {name}:{grid}" if grid else "")
        )
    if count is not None and int(count) < 1:
        raise ValueError(f"--target={text} must have a device or more; use {FORMS}")
    return chip, shape or chip.shape(int(count or 1))
