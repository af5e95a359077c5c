"""SimSiam and LoGo around it: ResNet-50, COCO 2017 images, 200 epochs, batch 256.

VOC07 linear SVM, mAP in percent:

    variant        published          ours
    baseline       -                  -
    multicrop      -                  -
    logo           -                  -

The supplement's Table 7 has MoCo alone. Epochs are not told: ImageNet-100's. Local
areas are the released code's.

    python -m logo_jax.main --config=configs/coco_simsiam.py --workdir=runs/coco

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_imagenet


def get_config(variant: str = "logo") -> ConfigDict:
    config = base_imagenet.get_config(
        "simsiam", variant or "logo", "resnet50", 2048, local_area=(0.05, 0.4)
    )
    config.data.name = "coco"
    return base.finish(config, variant)
