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
    config.method.momentum = 0.99  # of the key encoder
    config.method.temperature = 0.1
    config.method.shuffle = True  # keys' images change places between norm groups
    config.logo.update_kind = "released"
    config.logo.weight = 5e-4

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
