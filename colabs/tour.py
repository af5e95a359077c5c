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
# with its plug-in for GPU or TPU, and you are asked to restart the session. The source
# is the clone of this notebook, or the repository; `SOURCE` names another one.

# %%
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

REPOSITORY = "https://github.com/OWNER/logo_jax"
IN_CLONE = pathlib.Path("../pyproject.toml").is_file()
# a git URL (git+https://...), a wheel, or a clone
SOURCE = ".." if IN_CLONE else f"git+{REPOSITORY}"
JAX = ">=0.10.2,!=0.12.0,!=0.12.0.1"
PLUGINS = {
    "jax-cuda12-plugin": "cuda12",
    "jax-cuda13-plugin": "cuda13",
    "libtpu": "tpu",
}


def requirements(source, installed):
    """Returns the requirements for pip, given the installed versions by name."""
    from packaging.specifiers import SpecifierSet

    path = pathlib.Path(source).resolve()
    if "://" not in source:
        if path.suffix != ".whl" and not (path / "pyproject.toml").is_file():
            raise ValueError(
                f"SOURCE={source!r} must be a git URL, wheel or clone of logo_jax"
            )
        source = path.as_uri()
    jax = f"jax=={installed.get('jax')}"
    if installed.get("jax", "0") not in SpecifierSet(JAX):
        plugins = [extra for name, extra in PLUGINS.items() if name in installed]
        jax = f"jax[{','.join(plugins)}]{JAX}"
    return f"logo_jax @ {source}", jax


def install(source):
    """Installs logo_jax; raises an error if jax was replaced."""
    installed = {x.name: x.version for x in importlib.metadata.distributions()}
    wanted = requirements(source, installed)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted], check=True)
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
# A TPU serves one process, so everything below runs in this one. The run is on the
# local disk. Its archive is copied to Google Drive after each call, and from there at
# the beginning, so that *Run all* resumes the run if the machine was lost.
#
# On Kaggle, set *Internet* to *On*, and `SOURCE` to the git URL or to a data set with
# the clone. The files in `/kaggle/working` are kept when you save a version.

# %%
import _thread
import json
import os
import shutil
import threading
import time

import jax
import numpy as np
from IPython.display import Image, display

import logo_jax
from logo_jax import convert, report

try:
    from google.colab import drive
except ImportError:
    HOME = KEPT = pathlib.Path(os.environ.get("LOGO_TOUR_DIR", "runs/tour"))
else:
    drive.mount("/content/drive")
    HOME, KEPT = (
        pathlib.Path(folder, "logo_jax_tour")
        for folder in ("/content", "/content/drive/MyDrive")
    )
for folder in (HOME, KEPT):
    folder.mkdir(parents=True, exist_ok=True)
RUN, ARCHIVE = HOME / "run", KEPT / "run.tar"
if ARCHIVE.exists() and not RUN.exists():
    shutil.unpack_archive(ARCHIVE, RUN)

# changed fields of the config, such as {"train.num_steps": 300}
CHANGES = json.loads(os.environ.get("LOGO_TOUR_CHANGES", "{}"))


def keep():
    """Copies an archive of the run to Google Drive, if that is mounted."""
    if KEPT != HOME:
        shutil.make_archive(ARCHIVE.with_suffix(""), "tar", RUN)


def show(*pngs):
    """Shows figures, given as the bytes of PNG files."""
    display(*(Image(png, retina=True) for png in pngs))


print("devices:", *jax.devices())
print("all files are written to", HOME.absolute())

# %% [markdown]
# ## Train and interrupt
#
# MoCo with LoGo on 4,500 patches. Baselines without training, the kNN accuracy of raw
# pixels, of mean colors, and of the untrained network, are printed before the first kNN
# accuracy of the trained network. After that we interrupt the run, as the stop button
# does. The state is saved, and the call returns what there is.


# %%
def interrupt_after_knn():
    """Interrupts the cell, as the stop button does, after the first kNN accuracy."""
    metrics = RUN / "metrics.jsonl"
    while not (metrics.exists() and "knn/" in metrics.read_text()):
        time.sleep(0.01)
    _thread.interrupt_main()


CALL = {"config": "quickstart", "workdir": RUN, **CHANGES}
if not RUN.exists():
    threading.Thread(target=interrupt_after_knn, daemon=True).start()
run = logo_jax.pretrain(**CALL)
keep()

# %% [markdown]
# The same call resumes the run; the result is bit-equal to that of a run without
# interruption.

# %%
run = logo_jax.pretrain(**CALL)
keep()

# %% [markdown]
# ## What it learned
#
# All metrics are in `run.metrics`; files for other programs are `metrics.csv` and
# `tensorboard/`.

# %%
from logo_jax.visualization import curves

accuracy, losses, *_ = curves.plot_curves({"tour": run.metrics})
show(accuracy.png, losses.png)

# %% [markdown]
# A report is one HTML file about a run, `report/index.html` in its folder. Three of its
# figures: crops, as the network sees them, next to their boxes; the nearest training
# patches of six test patches (green: from the same photograph); and the principal
# components of the features.

# %%
page = run.report()
FIGURES = ("crops", "neighbours", "features")  # codespell:ignore neighbours
show(*((page.parent / f"{name}.png").read_bytes() for name in FIGURES))

# %% [markdown]
# LoGo's regressor learns *how similar* two crops are, so that they can be pushed apart.
# The figures compare its affinity with the cosine similarity: between one crop and
# forty others, and against the overlap of two crops of an image. After so few steps the
# affinity distinguishes pairs of one image from pairs of two images hardly better than
# chance, and the cosine similarity does better. The numbers are printed. A command such
# as `python -m logo_jax.report` is a function here, too.

# %%
AFFINITY = HOME / "affinity"
report.main(["similarity", f"--workdir={RUN}", f"--out={AFFINITY}", "--overwrite"])
FIGURES = ("similarity", "overlap")
show(*((AFFINITY / f"{name}.png").read_bytes() for name in FIGURES))

# %% [markdown]
# ## Evaluate
#
# The encoder is frozen. First its kNN accuracy and the baselines above are measured;
# then a linear classifier is trained on the features, with learning rate and weight
# decay chosen on held-out images.

# %%
for protocol, options in (
    ("knn", {"trivial_baselines": True}),
    ("linear", {"recipe": "features"}),
):
    result = run.evaluate(protocol, **options)
    print(result["protocol"])
    for name, value in result["values"].items():
        print(f"  {name:32s} {value:6.2f} %")

# %% [markdown]
# ## Features
#
# The encoder is a function from images to features: here of the ten whole photographs.
# For each, the most similar other photograph is printed.

# %%
from logo_jax.data.sources import photographs

names = list(photographs.PHOTOGRAPHS)
files = [photographs.locate_photograph(name) for name in names]
encoder = logo_jax.load_encoder(RUN, resize=320, crop=320)
features = encoder(files)
unit = features / np.linalg.norm(features, axis=1, keepdims=True)
cosines = unit @ unit.T - 2 * np.eye(len(unit))
for name, row in zip(names, cosines, strict=True):
    print(f"{name:24s} {names[row.argmax()]:24s} {row.max():.2f}")

# %% [markdown]
# ## Export
#
# The first call writes the weights with torchvision's names; the second writes
# StableHLO code for CPU, CUDA and TPU, which needs `jax` but not logo_jax. Each file is
# read back and compared with the encoder before it is kept.

# %%
WEIGHTS, COMPILED = HOME / "encoder.safetensors", HOME / "encoder.stablehlo"
convert.main([str(RUN), f"--out={WEIGHTS}", "--overwrite"])
convert.main([str(RUN), "--to=stablehlo", f"--out={COMPILED}", "--overwrite"])

from jax import export

exported = export.deserialize(bytearray(COMPILED.read_bytes()))
print(exported.in_avals[-1], "->", exported.out_avals[0])

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
# To train on a folder of images, with any nesting:
# `logo_jax.pretrain("photos", workdir="runs/photos")`. All files of this tour:

# %%
for path in sorted(HOME.glob("*")):
    print(path)
