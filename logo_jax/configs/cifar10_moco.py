"""MoCo and LoGo around it: ResNet-18, CIFAR-10, 200 epochs, batch 512.

kNN top-1 in percent (k=200, T=0.1):

    variant        published          ours
    baseline       82.6, 85.3         -
    logo           -                  -

Published is MoCo's own CIFAR-10 notebook, asymmetric and symmetric: a single linear
layer as head, kNN on its 128-d output; here a two-layer head, kNN on backbone features,
and on the output too with `--config.monitor.projector=True`. Ours has not been run at
this size. At one that two CPU cores finish (docs/results.md; a narrow ResNet-10, 1.9
epochs, three seeds) four crops are 3.0 points above the baseline at equal epochs, and
2.5 below it, or 2.0 below the symmetric one, at equal compute; at no strength is the
released update above itself without repulsion, nor the joint one above multicrop by
more than chance, so strengths are the sources'. The regressor's noise and batch norm
are those with which it learns how alike crops are: its rank correlation with their
overlap is 0.5 (at ten times the released strength), as released 0.06.

    python -m logo_jax.prepare cifar10
    python -m logo_jax.main --config=configs/cifar10_moco.py --workdir=runs/moco

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is. The
baseline is asymmetric; add `--config.pairing=symmetric` for the symmetric one.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco", variant or "logo", baseline_area=(0.08, 1.0))
    return base.finish(config, variant)
