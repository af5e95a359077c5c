# %% [markdown]
# # A tour of logo_jax
#
# An image encoder learns without labels: **LoGo** pulls global crops of an image
# together and pushes its local crops apart
# ([arXiv:2203.17205](https://arxiv.org/abs/2203.17205)). In about ten minutes you will
# train one on patches of ten photographs (they come with the dependencies), lose the
# run and get it back, see what it learns, evaluate it, and take it elsewhere.
#
# Runs on TPU, GPU and CPU alike: *Run all*.

# %% [markdown]
# ## Install
#
# A `jax` that is new enough stays as it is. An older one is replaced, with its plug-in
# for GPU or TPU, and you are asked to restart the session. In a clone's `colabs` folder
# this needs nothing from you; elsewhere, set `SOURCE`.

# %%
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

SOURCE = ".."  # of logo_jax: a git URL (git+https://...), a wheel, or a clone
JAX_FLOOR = "0.10.2"
PLUGINS = {
    "jax-cuda12-plugin": "cuda12",
    "jax-cuda13-plugin": "cuda13",
    "libtpu": "tpu",
}


def stream(*command, stop_after=None):
    """Runs a command and shows what it says; after such a line, tells it to stop."""
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
    """What pip is to install, given the versions of what is."""
    from packaging.version import Version

    path = pathlib.Path(source).resolve()
    if "://" not in source:
        if path.suffix != ".whl" and not (path / "pyproject.toml").is_file():
            raise ValueError(
                f"SOURCE={source!r} is no git URL, wheel or clone of logo_jax; set it"
            )
        source = path.as_uri()
    jax = f"jax=={installed.get('jax')}"
    if Version(installed.get("jax", "0")) < Version(JAX_FLOOR):
        plugins = [extra for name, extra in PLUGINS.items() if name in installed]
        jax = f"jax[{','.join(plugins)}]>={JAX_FLOOR}"
    return f"logo_jax @ {source}", jax


def install(source):
    """Installs logo_jax; asks for a new session where jax had to be replaced."""
    installed = {x.name: x.version for x in importlib.metadata.distributions()}
    wanted = requirements(source, installed)
    stream(sys.executable, "-m", "pip", "install", "-q", *wanted)
    importlib.invalidate_caches()
    if "jax" in installed and importlib.metadata.version("jax") != installed["jax"]:
        raise RuntimeError("jax was replaced: restart the session, then run all again")


if importlib.util.find_spec("logo_jax") is None:
    install(SOURCE)

# %% [markdown]
# ## Where the run lives
#
# On Colab, in your Drive: should the runtime be lost, *Run all* goes on from there.
# Every command below is what you would type in a terminal, `python -m logo_jax.…`; each
# has the accelerator to itself, so the notebook's own little computing is on the CPU.

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

# of the config's fields, such as {"train.num_steps": 300}
CHANGES = json.loads(os.environ.get("LOGO_TOUR_CHANGES", "{}"))
jax.config.update("jax_platforms", "cpu")


def logo(command, *arguments, **options):
    """Runs python -m logo_jax.COMMAND."""
    print("python -m", f"logo_jax.{command}", *arguments, flush=True)
    words = (sys.executable, "-m", f"logo_jax.{command}", *map(str, arguments))
    stream(*words, **options)


def show(*pngs):
    """Shows pictures, as bytes of PNG files."""
    display(*(Image(png, retina=True) for png in pngs))


print("everything goes to", HOME.absolute())

# %% [markdown]
# ## Train, until something happens
#
# MoCo with LoGo on 4,500 patches. First come baselines without training: what kNN
# reaches on raw pixels, on mean colors, and with the untrained network. Once the
# trained network's own kNN is there, we stop the run from outside, as a lost machine
# would.

# %%
FLAGS = [f"--config.{name}={value}" for name, value in CHANGES.items()]
TRAIN = ("main", "--config=quickstart", f"--workdir={RUN}", *FLAGS)
logo(*TRAIN, stop_after="knn/")

# %% [markdown]
# The same command goes on where it stopped, to the same bits as a run that never did.

# %%
logo(*TRAIN)

# %% [markdown]
# ## What it learned
#
# All numbers are lines of `metrics.jsonl`; `metrics.csv` and TensorBoard have them too.

# %%
from logo_jax.training.logging.metric_writer import read_rows
from logo_jax.visualization import curves

accuracy, losses, *_ = curves.plot_curves({"tour": read_rows(RUN / "metrics.jsonl")})
show(accuracy.png, losses.png)

# %% [markdown]
# A report is one HTML file about a run, `report/index.html` in its folder. Three of its
# figures: crops, as the network gets them, beside their boxes; the nearest training
# patches of six test patches (green: from the same photograph); and the main axes of
# the features.

# %%
logo("report", RUN, "--overwrite")
FIGURES = ("crops", "neighbours", "features")
show(*((RUN / "report" / f"{name}.png").read_bytes() for name in FIGURES))

# %% [markdown]
# LoGo's regressor learns *how alike* two crops are, so that they can be pushed apart.
# Its affinity beside the plain cosine: of one crop with forty others, and over the
# overlap of two crops of an image. After so few steps it tells pairs of one image from
# pairs of two hardly better than chance, and the cosine does better: the numbers are
# printed.

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
# The encoder is frozen. Nearest neighbors, beside these baselines; then a linear
# classifier on its features, with learning rate and decay chosen on held-out images.

# %%
logo("evaluate", f"--workdir={RUN}", "--protocol=knn", "--trivial_baselines")
logo("evaluate", f"--workdir={RUN}", "--protocol=linear", "--recipe=features")

# %% [markdown]
# ## Take it elsewhere
#
# Weights under torchvision's names; and compiled code for CPU, CUDA and TPU, which
# needs `jax` and nothing of ours. Each is read back and compared before it is kept.

# %%
WEIGHTS, COMPILED = HOME / "encoder.safetensors", HOME / "encoder.stablehlo"
logo("convert", RUN, f"--out={WEIGHTS}", "--overwrite")
logo("convert", RUN, "--to=stablehlo", f"--out={COMPILED}", "--overwrite")

from jax import export

encoder = export.deserialize(bytearray(COMPILED.read_bytes()))
print(encoder.in_avals[-1], "->", encoder.out_avals[0])

# %% [markdown]
# The features of any folder of images: here the ten photographs, whole. Which does the
# encoder find alike?

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
# Each is a pure function of arrays, for a loop of your own in any JAX library.

# %%
from logo_jax.losses import info_nce, l2_normalize

z = l2_normalize(jax.random.normal(jax.random.key(0), (3, 8, 32)))
loss = info_nce(z[:1], z[1:2], z[2], temperature=0.1)  # queries, keys, negatives
print(loss.shape, float(loss.mean()))

# %% [markdown]
# ## Your own images
#
# A folder, nested as you like: `python -m logo_jax.main --config=folder
# --config.data.path=DIR --workdir=RUN`. All of this tour's files:

# %%
for path in sorted(HOME.glob("*")):
    print(path)
