"""MoCo and MoCo-LoGo: ResNet-18, CIFAR-10, 200 epochs, batch 512.

kNN top-1 in percent (k=200, T=0.1):

    variant        published          ours
    baseline       82.6, 85.3         -
    logo           -                  -

A dash means that there is no value. The published values are from MoCo's CIFAR-10
notebook, first for the asymmetric loss (one of two crops is the query) and then for the
symmetric loss. The notebook has a single linear layer as head and evaluates kNN on its
128-d output; this config has a two-layer head and evaluates kNN on backbone features,
and with `--config.monitor.projector=True` on the output, too.

We have not run this config at full size. At a size for two CPU cores (docs/results.md;
a narrow ResNet-10, 1.9 epochs, three seeds), four crops (variant multicrop) are 3.0
points above the baseline at equal epochs. At equal compute they are 2.5 points below
the baseline and 2.0 points below the symmetric baseline.

LoGo's repulsion is a loss that pushes local crops of an image apart. It is minimized in
an optimizer step of its own, as in the released code (released update), or as a term of
MoCo's loss (joint update). At no strength of the repulsion is the released update
better than the same update without repulsion, or the joint update better than
multicrop, by more than chance, so this config has the strengths of its sources
(docs/parity.md). The regressor is the network that scores how similar two local crops
are.
With logo.noise and logo.regressor_norm of this config it learns their similarity: the
rank correlation of its scores with the overlap of crops is 0.5 (at ten times the
released strength), compared with 0.06 for the settings of the released code.

    python -m logo_jax.prepare cifar10
    python -m logo_jax.main --config=configs/cifar10_moco.py --workdir=runs/moco

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.
The baseline has the asymmetric loss; `--config.pairing=symmetric` gives the symmetric
loss.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    config.data.name = "cifar10"
    config.data.batch_size = 512
    config.crops.global_crops = (2, 32, (0.4, 1.0))
    config.crops.local_crops = (2, 32, (0.08, 0.6))

    config.encoder.backbone = "resnet18"
    config.encoder.stem = "cifar"
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 128
    config.batch_norm = "split:8"

    config.method.queue_size = 4096
    config.method.momentum = 0.99  # momentum of the key encoder
    config.method.temperature = 0.1
    config.method.shuffle = True  # shuffles the keys' images between norm groups
    config.logo.update_kind = "released"
    config.logo.weight = 5e-4

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
