r"""SimSiam and SimSiam-LoGo on a folder of your own images: ResNet-18.

    python -m logo_jax.main --config=configs/folder.py --workdir=runs/mine \
        --config.data.path=DIR

Images may be in nested folders and have any size, and they need no labels. If there are
`DIR/train` and `DIR/val` (or `test`), each with one sub-folder per class, kNN accuracy
is reported during training; docs/data.md has other names of these folders, and lists:
--config.data.list=labels.csv. A file that
cannot be decoded is reported and skipped; the run stops if the fraction of such files
exceeds data.max_corrupt.

As `auto` is True, the fields that are AUTO are chosen from the number and the size of
the images and from the memory when the run begins: batch size, epochs, sizes of crops,
stem, and intervals of evaluations and checkpoints. The first lines of the run state
them, and docs/training.md has the rules. A flag sets another value, and the others
follow it.

Variants, given as FILE:VARIANT: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper. They are described in configs/base.py;
baseline_400 has twice the chosen epochs, and released a batch size that is chosen, too.
configs/folder_moco.py is the same with MoCo.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_folder
from logo_jax.configs.base import AUTO


def get_config(variant: str = "logo") -> ConfigDict:
    config = base.get_config("simsiam")
    base_folder.set_images(config)
    config.crops.global_crops = (2, AUTO, (0.4, 1.0))
    config.crops.local_crops = (2, AUTO, (0.08, 0.4))

    config.encoder.backbone = "resnet18"
    config.encoder.zero_init_residual = True
    config.encoder.head_layers = 3
    config.encoder.head_hidden = 512
    config.encoder.embedding_dim = 2048
    config.batch_norm = "global"

    config.method.predictor_hidden = 512
    config.method.predictor_fixed_rate = True  # constant learning rate of the predictor
    config.logo.update_kind = "released"

    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.05  # x batch_size / 256
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = "cosine"
    base.with_variant(config, variant or "logo", baseline_area=(0.2, 1.0))
    config.data.batch_size = AUTO  # also if the variant has a batch size
    return config
