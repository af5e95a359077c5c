"""SimSiam and SimSiam-LoGo: ResNet-34, ImageNet-100, 200 epochs, batch 256.

kNN / linear top-1 in percent:

    variant        published          ours
    baseline       71.72 / 75.48      -
    baseline_400   73.16 / 76.78      -
    swav_style     64.32 / 68.46      -
    multicrop      76.64 / 79.52      -
    logo           78.48 / 80.94      -

The published values are from the supplement's Tables 2 and 3, which do not state k and
the settings of the linear probe.

    python -m logo_jax.main --config=configs/imagenet100_simsiam.py --workdir=runs/in100

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("simsiam")
    config.data.name = "imagenet100"
    config.data.batch_size = 256
    config.crops.global_crops = (2, 224, (0.4, 1.0))
    config.crops.local_crops = (2, 96, (0.08, 0.4))
    base_imagenet.set_images(config)

    config.encoder.backbone = "resnet34"
    config.encoder.stem = "imagenet"
    config.encoder.zero_init_residual = True
    config.encoder.head_layers = 3
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 2048
    config.encoder.dtype = "bfloat16"
    config.batch_norm = "global"

    config.method.predictor_hidden = 512
    config.method.predictor_fixed_rate = True  # constant learning rate of the predictor
    config.logo.update_kind = "released"

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.05  # x batch_size / 256
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = "cosine"
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.2, 1.0))
