"""SimSiam and SimSiam-LoGo: ResNet-18, CIFAR-10, 200 epochs, batch 512.

kNN top-1 in percent on backbone features:

    variant        published          ours
    baseline       -                  -
    logo           87.67              -

The published value is from the paper's Table 1, which does not state k. SimSiam alone
reaches 81.9 after 200 of 800 epochs (Chen & He 2021, Fig. D.1).

We have not run this config at full size. At a size for two CPU cores (docs/results.md;
a narrow ResNet-10, 1.9 epochs, three seeds), four crops are 3.7 points above the
baseline at equal epochs and not distinguishable from it at equal compute. LoGo's
repulsion of local crops adds nothing to four crops, so its strength is that of the
sources (docs/parity.md).

    python -m logo_jax.prepare cifar10
    python -m logo_jax.main --config=configs/cifar10_simsiam.py --workdir=runs/simsiam

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("simsiam")
    config.data.name = "cifar10"
    config.data.batch_size = 512
    config.crops.global_crops = (2, 32, (0.4, 1.0))
    config.crops.local_crops = (2, 32, (0.08, 0.6))

    config.encoder.backbone = "resnet18"
    config.encoder.stem = "cifar"
    config.encoder.zero_init_residual = True
    config.encoder.head_layers = 2
    config.encoder.head_hidden = 2048
    config.encoder.embedding_dim = 2048
    config.batch_norm = "global"

    config.method.predictor_hidden = 512
    config.method.predictor_fixed_rate = True  # constant learning rate of the predictor
    config.logo.update_kind = "released"

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = "cosine"
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.2, 1.0))
