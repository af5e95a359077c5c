"""Measures training steps: images per second, FLOPs, memory, compilation time.

python -m benchmarks.step [--preset=cifar|imagenet] [--peer=torch]

The steps, a plain matrix product of the same dtype and, with `--convolutions`, the
convolutions of each step alone are run alternately, so that other load on the machine
affects all of them equally. The preset `small` is a ResNet-18 on 32 px images with a
batch size of 16; the other presets are sized for a large GPU. FLOPs are those of the
lowered program; those of the compiled program, which are printed too, do not include
the operations of a GPU's libraries. `--peer=torch` adds a PyTorch step of MoCo-LoGo
with the CIFAR ResNet-18, in the style of the released code, and its convolutions alone
(needs `-e ".[bench]"`; tested with 2.13.0); logo_jax never imports it. `--real` adds
the last step with crops cut from images on the device. Prints a table and one JSON
line.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.contenders import Program, Run, matrix_product, program
from benchmarks.timing import alternate
from logo_jax import configs
from logo_jax.methods.base import Batch


class Preset(NamedTuple):
    """Name pattern of the config module, images per step, dtype of the computation."""

    config: str
    batch_size: int
    dtype: str


PRESETS = {
    "small": Preset("cifar10_{}", 16, "float32"),
    "cifar": Preset("cifar10_{}", 512, "bfloat16"),
    "imagenet": Preset("imagenet100_r50_{}", 256, "bfloat16"),
}
ALONE = "convolutions"
KINDS = {
    "two_crop": ("baseline", "none"),
    "multicrop": ("multicrop", "none"),
    "logo_released": ("logo", "released"),
    "logo_joint": ("logo", "joint"),
}


def config_of(preset: Preset, method: str, kind: str) -> ConfigDict:
    """Returns the config of a method and kind for one device, without shuffling."""
    variant, update_kind = KINDS[kind]
    config = configs.load(f"{preset.config.format(method)}:{variant}")
    config.logo.update_kind = update_kind
    config.encoder.dtype = preset.dtype
    config.data.batch_size = preset.batch_size
    config.batch_norm = "per_device"
    if method == "moco":
        config.method.shuffle = False
    return config


def chosen(flags: argparse.Namespace, method: str, kind: str) -> ConfigDict:
    """Returns the config of a method and kind, with the sizes of the flags."""
    preset = PRESETS[flags.preset]
    config = config_of(preset, method, kind)
    config.data.batch_size = flags.batch_size or preset.batch_size
    config.encoder.width = flags.width or config.encoder.width
    config.encoder.backbone = flags.backbone or config.encoder.backbone
    config.encoder.remat = flags.remat
    return config


def crops_of(config: ConfigDict) -> Batch:
    """Returns random crops with the counts and sizes of a config, always the same."""
    rng = np.random.default_rng(0)
    groups = (config.crops.global_crops, config.crops.local_crops)
    shapes = ((config.data.batch_size, n, side, side, 3) for n, side, _ in groups)
    return Batch(*(rng.normal(size=shape).astype(np.float32) for shape in shapes))


def ours(config: ConfigDict) -> Run:
    """Returns a function that runs a step on fixed crops and waits for its end."""
    return program(config, crops_of(config)).run


def peers(flags: argparse.Namespace) -> dict[str, Run]:
    """Returns PyTorch's steps by name."""
    if flags.peer == "none":
        return {}
    if "cifar" not in PRESETS[flags.preset].config or flags.backbone not in (
        "",
        "resnet18",
    ):
        raise SystemExit(
            "--peer=torch supports the CIFAR ResNet-18 only; use another --preset"
        )
    from benchmarks import torch_logo

    config = chosen(flags, "moco", "logo_joint")
    return torch_logo.contenders(
        config.encoder.width, crops_of(config), compiled=flags.torch_compile
    )


def row_of(
    case: tuple[str, str],
    built: dict[tuple[str, str], Program],
    seconds: dict[str, list[float]],
    batch: Batch,
    rate: float,
) -> dict[str, Any]:
    """Returns the measurements of a step, with FLOPs and memory."""
    mine, spent = built[case], seconds[" ".join(case)]
    images, median = len(batch.global_crops), statistics.median(spent)
    views = batch.global_crops.shape[1] + batch.local_crops.shape[1]
    row: dict[str, Any] = {
        "step": " ".join(case),
        "images_per_second": round(images / median, 2),
        "views_per_second": round(views * images / median, 2),
        "gflops": round(mine.flops / 1e9, 3),
        "compiled_gflops": round(mine.compiled_flops / 1e9, 3),
        "share_of_matrix_rate": round(mine.flops / median / rate, 3),
        "mib": round(mine.bytes / 2**20, 1),
        "compile_cold_s": round(mine.cold, 1),
        "compile_warm_s": round(mine.warm, 1),
    }
    alone = " ".join((*case, ALONE))
    if alone in seconds:
        row["convolutions_over_step"] = spread(seconds[alone], spent)
    reference = (case[0], "two_crop")
    if reference in built:
        work = mine.flops / built[reference].flops
        times = spread(spent, seconds[" ".join(reference)])
        row["time_over_two_crops_per_flop"] = [round(x / work, 3) for x in times]
    row |= {
        f"speed_over_{name.replace(' ', '_')}": spread(theirs, spent)
        for name, theirs in seconds.items()
        if name.startswith("torch")
    }
    return row


def spread(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Returns the median, minimum and maximum ratio over the rounds."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return [round(f(ratios), 3) for f in (statistics.median, min, max)]


def measured(flags: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a row for each step, then one row for everything else that was timed."""
    preset = PRESETS[flags.preset]
    configs = {
        (method, kind): chosen(flags, method, kind)
        for method in flags.methods.split(",")
        for kind in flags.kinds.split(",")
    }
    batches = {case: crops_of(config) for case, config in configs.items()}
    theirs = peers(flags)
    built = {case: program(configs[case], batches[case]) for case in configs}
    runs = {" ".join(case): mine.run for case, mine in built.items()}
    if flags.convolutions:
        runs |= {f"{' '.join(c)} {ALONE}": p.convolutions() for c, p in built.items()}
    product, operations = matrix_product(jnp.dtype(preset.dtype), flags.product)
    runs |= {"matrix product": product} | theirs
    *_, last = configs
    if flags.real:
        runs["real"] = program(configs[last], batches[last], real=True).run
    seconds = alternate(runs, flags.rounds)
    rate = operations / statistics.median(seconds["matrix product"])
    for case in configs:
        yield row_of(case, built, seconds, batches[case], rate)
    rest = {name: values for name, values in seconds.items() if "torch" in name}
    yield {
        "step": "others",
        "matrix_gflops": round(rate / 1e9, 1),
        "torch_images_per_second": {
            name: round(configs[last].data.batch_size / statistics.median(values), 2)
            for name, values in rest.items()
        },
    } | (
        {"synthetic_over_real": spread(seconds[" ".join(last)], seconds["real"])}
        if flags.real
        else {}
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--methods", default="moco,simsiam")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument(
        "--backbone", default="", help="backbone, instead of the preset's"
    )
    parser.add_argument(
        "--width", type=int, default=0, help="width of the backbone's first stage"
    )
    parser.add_argument("--batch_size", type=int, default=0, help="images per step")
    parser.add_argument(
        "--product", type=int, default=2048, help="side of the matrices"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--convolutions", action="store_true", help="also time the convolutions alone"
    )
    parser.add_argument("--remat", action="store_true")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--peer", choices=["none", "torch"], default="none")
    parser.add_argument("--torch_compile", action="store_true")
    flags = parser.parse_args(arguments)
    table = list(measured(flags))
    for row in table:
        print(*(f"{name}={value}" for name, value in row.items()), sep="  ")
    print(json.dumps({"jax": jax.__version__, **vars(flags), "rows": table}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        main()
