"""MoCo and MoCo-LoGo: ResNet-50, COCO 2017 images, 200 epochs, batch 256.

VOC07 linear SVM, mAP in percent:

    variant        published          ours
    baseline       76.12              -
    multicrop      77.97              -
    logo           79.59              -

The published values are from the supplement's Table 7. The paper does not state the
number of epochs; this config has that of ImageNet-100. The areas of local crops are
those of the released code.

    python -m logo_jax.main --config=configs/coco_moco.py --workdir=runs/coco

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("moco")
    config.data.name = "coco"
    config.data.canvas = 640  # the longest side of its images: none is reduced
    config.data.batch_size = 256
    config.crops.global_crops = (2, 224, (0.4, 1.0))
    config.crops.local_crops = (2, 96, (0.05, 0.4))
    base_imagenet.set_images(config)

    config.encoder.backbone = "resnet50"
    config.encoder.stem = "imagenet"
    config.encoder.head_hidden = 2048
    config.encoder.embedding_dim = 128
    config.encoder.dtype = "bfloat16"
    config.batch_norm = "split:8"

    config.method.queue_size = 4096
    config.method.momentum = 0.999  # momentum of the key encoder
    config.method.temperature = 0.07
    config.method.shuffle = True  # shuffles the keys' images between norm groups
    config.logo.update_kind = "released"
    config.logo.weight = 5e-4

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03  # x batch_size / 256
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = "cosine"
    config.train.num_epochs = 200
    return base.with_variant(config, variant or "logo", baseline_area=(0.08, 1.0))
