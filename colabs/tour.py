# %% [markdown]
# # A tour of logo_jax
#
# **LoGo** trains an image encoder without labels: it pulls global crops of an image
# together and pushes its local crops apart
# ([arXiv:2203.17205](https://arxiv.org/abs/2203.17205)). In about ten minutes you will
# train an encoder on patches of ten photographs (which come with the dependencies),
# stop and resume the run, look at what it learns, evaluate it, and export it.
#
# The notebook runs on TPU, GPU and CPU: choose *Run all*.

# %% [markdown]
# ## Install
#
# An installed `jax` is kept if it is new enough. Otherwise it is replaced, together
# with its plug-in for GPU or TPU, and you are asked to restart the session. In the
# `colabs` folder of a clone nothing needs to be set; elsewhere, set `SOURCE`.

# %%
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

SOURCE = ".."  # source of logo_jax: a git URL (git+https://...), a wheel, or a clone
JAX_FLOOR = "0.10.2"
PLUGINS = {
    "jax-cuda12-plugin": "cuda12",
    "jax-cuda13-plugin": "cuda13",
    "libtpu": "tpu",
}


def stream(*command, stop_after=None):
    """Runs a command, shows its output, and stops it after a line with `stop_after`."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    stopped = False
    with subprocess.Popen(command, **pipes) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if stop_after and stop_after in line:
                stopped = True
                process.terminate()
    if process.returncode and not stopped:
        raise subprocess.CalledProcessError(process.returncode, command)


def requirements(source, installed):
    """Returns the requirements for pip, given the installed versions by name."""
    from packaging.version import Version

    path = pathlib.Path(source).resolve()
    if "://" not in source:
        if path.suffix != ".whl" and not (path / "pyproject.toml").is_file():
            raise ValueError(
                f"SOURCE={source!r} must be a git URL, wheel or clone of logo_jax"
            )
        source = path.as_uri()
    jax = f"jax=={installed.get('jax')}"
    if Version(installed.get("jax", "0")) < Version(JAX_FLOOR):
        plugins = [extra for name, extra in PLUGINS.items() if name in installed]
        jax = f"jax[{','.join(plugins)}]>={JAX_FLOOR}"
    return f"logo_jax @ {source}", jax


def install(source):
    """Installs logo_jax; raises an error if jax was replaced."""
    installed = {x.name: x.version for x in importlib.metadata.distributions()}
    wanted = requirements(source, installed)
    stream(sys.executable, "-m", "pip", "install", "-q", *wanted)
    importlib.invalidate_caches()
    if "jax" in installed and importlib.metadata.version("jax") != installed["jax"]:
        raise RuntimeError(
            "jax was replaced; restart the session and run all cells again"
        )


if importlib.util.find_spec("logo_jax") is None:
    install(SOURCE)

# %% [markdown]
# ## The folder of the run
#
# On Colab the run is stored in your Drive: if the runtime is lost, *Run all* resumes
# it. Every command below is what you would type in a terminal, `python -m logo_jax.…`.
# Each command needs the accelerator for itself, so the notebook computes on the CPU.

# %%
import json
import os
import shutil

import jax
import numpy as np
from IPython.display import Image, display

try:
    from google.colab import drive
except ImportError:
    HOME = pathlib.Path(os.environ.get("LOGO_TOUR_DIR", "runs/tour"))
else:
    drive.mount("/content/drive")
    HOME = pathlib.Path("/content/drive/MyDrive/logo_jax_tour")
HOME.mkdir(parents=True, exist_ok=True)
RUN = HOME / "run"

# changed fields of the config, such as {"train.num_steps": 300}
CHANGES = json.loads(os.environ.get("LOGO_TOUR_CHANGES", "{}"))
jax.config.update("jax_platforms", "cpu")


def logo(command, *arguments, **options):
    """Runs python -m logo_jax.COMMAND."""
    print("python -m", f"logo_jax.{command}", *arguments, flush=True)
    words = (sys.executable, "-m", f"logo_jax.{command}", *map(str, arguments))
    stream(*words, **options)


def show(*pngs):
    """Shows figures, given as the bytes of PNG files."""
    display(*(Image(png, retina=True) for png in pngs))


print("all files are written to", HOME.absolute())

# %% [markdown]
# ## Train and interrupt
#
# MoCo with LoGo on 4,500 patches. First come baselines without training: the kNN
# accuracy of raw pixels, of mean colors, and of the untrained network. After the first
# kNN accuracy of the trained network we stop the run, as if the machine were lost.

# %%
FLAGS = [f"--config.{name}={value}" for name, value in CHANGES.items()]
TRAIN = ("main", "--config=quickstart", f"--workdir={RUN}", *FLAGS)
logo(*TRAIN, stop_after="knn/")

# %% [markdown]
# The same command resumes the run; the result is bit-equal to that of a run without
# interruption.

# %%
logo(*TRAIN)

# %% [markdown]
# ## What it learned
#
# All metrics are in `metrics.jsonl`, and also in `metrics.csv` and TensorBoard.

# %%
from logo_jax.training.logging.metric_writer import read_rows
from logo_jax.visualization import curves

accuracy, losses, *_ = curves.plot_curves({"tour": read_rows(RUN / "metrics.jsonl")})
show(accuracy.png, losses.png)

# %% [markdown]
# A report is one HTML file about a run, `report/index.html` in its folder. Three of its
# figures: crops, as the network sees them, next to their boxes; the nearest training
# patches of six test patches (green: from the same photograph); and the principal
# components of the features.

# %%
logo("report", RUN, "--overwrite")
FIGURES = ("crops", "neighbours", "features")  # codespell:ignore neighbours
show(*((RUN / "report" / f"{name}.png").read_bytes() for name in FIGURES))

# %% [markdown]
# LoGo's regressor learns *how similar* two crops are, so that they can be pushed apart.
# The figures compare its affinity with the cosine similarity: between one crop and
# forty others, and against the overlap of two crops of an image. After so few steps the
# affinity distinguishes pairs of one image from pairs of two images hardly better than
# chance, and the cosine similarity does better. The numbers are printed.

# %%
logo(
    "report",
    "similarity",
    f"--workdir={RUN}",
    f"--out={HOME / 'affinity'}",
    "--overwrite",
)
FIGURES = ("similarity", "overlap")
show(*((HOME / "affinity" / f"{name}.png").read_bytes() for name in FIGURES))

# %% [markdown]
# ## Evaluate
#
# The encoder is frozen. First its kNN accuracy and the baselines above are measured;
# then a linear classifier is trained on the features, with learning rate and weight
# decay chosen on held-out images.

# %%
logo("evaluate", f"--workdir={RUN}", "--protocol=knn", "--trivial_baselines")
logo("evaluate", f"--workdir={RUN}", "--protocol=linear", "--recipe=features")

# %% [markdown]
# ## Export
#
# The first command writes the weights with torchvision's names; the second writes
# StableHLO code for CPU, CUDA and TPU, which needs `jax` but not logo_jax. Each file is
# read back and compared with the encoder before it is kept.

# %%
WEIGHTS, COMPILED = HOME / "encoder.safetensors", HOME / "encoder.stablehlo"
logo("convert", RUN, f"--out={WEIGHTS}", "--overwrite")
logo("convert", RUN, "--to=stablehlo", f"--out={COMPILED}", "--overwrite")

from jax import export

encoder = export.deserialize(bytearray(COMPILED.read_bytes()))
print(encoder.in_avals[-1], "->", encoder.out_avals[0])

# %% [markdown]
# `embed` computes the features of a folder of images, here the ten whole photographs.
# For each, the most similar other photograph is printed.

# %%
from logo_jax.data.sources import photographs

FOLDER = HOME / "photographs"
FOLDER.mkdir(exist_ok=True)
for name in photographs.PHOTOGRAPHS:
    shutil.copy(photographs.locate_photograph(name), FOLDER)
sizes = ("--resize=320", "--crop=320", "--overwrite")
logo("embed", FOLDER, f"--workdir={RUN}", f"--out={HOME / 'features.npz'}", *sizes)

with np.load(HOME / "features.npz") as file:
    names, features = file["files"], file["features"]
unit = features / np.linalg.norm(features, axis=1, keepdims=True)
cosines = unit @ unit.T - 2 * np.eye(len(unit))
for name, row in zip(names, cosines, strict=True):
    print(f"{name:24s} {names[row.argmax()]:24s} {row.max():.2f}")

# %% [markdown]
# ## The losses alone
#
# Each loss is a pure function of arrays, for your own training loop in any JAX library.

# %%
from logo_jax.losses import info_nce, l2_normalize

z = l2_normalize(jax.random.normal(jax.random.key(0), (3, 8, 32)))
loss = info_nce(z[:1], z[1:2], z[2], temperature=0.1)  # queries, keys, negatives
print(loss.shape, float(loss.mean()))

# %% [markdown]
# ## Your own images
#
# To train on a folder of images, with any nesting: `python -m logo_jax.main
# --config=folder --config.data.path=DIR --workdir=RUN`. All files of this tour:

# %%
for path in sorted(HOME.glob("*")):
    print(path)
