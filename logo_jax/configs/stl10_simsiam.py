"""SimSiam and LoGo around it: small AlexNet, STL-10, 200 epochs, batch 256.

kNN top-1 in percent:

    variant        published          ours
    logo           76.96              -

Published is the supplement's Table 8, local area up to 0.4; layer and k are not told,
nor are resolution, batch and rate: 64 px as Wang & Isola, the rest as the released
code.

    python -m logo_jax.main --config=configs/stl10_simsiam.py --workdir=runs/stl10

Supplement's Tables 8 and 9, all areas: configs/sweeps/stl10_crop_ratio.py.

Variants, `:NAME` behind the file's: baseline, baseline_400, multicrop, all_pairs,
swav_style, logo (default), released, paper; configs/base.py says what each is.
"""

from ml_collections import ConfigDict

from logo_jax.configs import base, base_stl10


def get_config(variant: str = "logo") -> ConfigDict:
    config = base_stl10.get_config("simsiam", variant or "logo")
    return base.finish(config, variant)
