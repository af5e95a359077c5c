"""BYOL and BYOL-LoGo: ResNet-18, ImageNet-100, 200 epochs, batch 256.

kNN / linear top-1 in percent:

    variant        published          ours
    baseline_400   - / 80.32          -
    logo           -                  -

The published value is that of solo-learn, which trains 400 epochs with another learning
rate of LARS. Augmentation, head, predictor and weight decay are those of BYOL; learning
rate and momentum are BYOL's for 300 epochs. The two global crops have different
augmentations, as in BYOL: only the second one is solarized, and it is rarely blurred.
LoGo uses the joint update, because the released update compares two SGD steps, and LARS
is not SGD.

    python -m logo_jax.main --config=configs/imagenet100_byol.py --workdir=runs/byol100

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.

Sources: https://arxiv.org/abs/2006.07733, Appendix B and Table 6; deepmind-research@
byol/configs/byol.py; vturrisi/solo-learn@scripts/pretrain/imagenet-100/byol.yaml.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("byol")
    config.data.name = "imagenet100"
    config.data.batch_size = 256
    config.crops.global_crops = (2, 224, (0.4, 1.0))
    config.crops.local_crops = (2, 96, (0.08, 0.4))
    base_imagenet.set_images(config)
    config.augment.jitter = (0.4, 0.4, 0.2, 0.1)
    config.augment.blur_prob = 1.0
    config.augment.second.blur_prob = 0.1
    config.augment.second.solarize_prob = 0.2

    config.encoder.backbone = "resnet18"
    config.encoder.stem = "imagenet"
    config.encoder.head_hidden = 4096
    config.encoder.embedding_dim = 256
    config.encoder.dtype = "bfloat16"
    config.batch_norm = "global"

    config.method.predictor_hidden = 4096
    config.method.momentum = 0.99  # initial momentum of the target encoder; ends at 1
    config.logo.update_kind = "joint"
    config.logo.weight = 1e-4

    config.optimizer.name = "lars"
    config.optimizer.learning_rate = 0.3  # x batch_size / 256
    config.optimizer.weight_decay = 1e-6
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_epochs = 10.0
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
