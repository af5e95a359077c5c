"""Sweep of the supplement's Tables 8 and 9: STL-10 kNN by the maximum area of crops.

Table 8 has local crops of area (0.08, r) and global crops of area (0.4, 1). Table 9 has
"global" crops of area (0.08, r) and local crops of area (0.08, 1), which swaps their
roles. The sweep has 26 runs (16 for Table 8, 10 for Table 9) of 200 epochs on 105,000
images. Published values are of single runs, for an unknown layer and k. The columns of
Table 8 were reconstructed from a scan, and the value 71.76 for MoCo is doubtful.

    python -m logo_jax.prepare stl10
    python -m logo_jax.sweep --sweep=configs/sweeps/stl10_crop_ratio.py --out=runs/ratio
"""

TABLE_8 = {
    "moco": (76.33, 76.79, 76.02, 77.15, 76.91, 77.36, 77.28, 71.76),
    "simsiam": (75.68, 76.96, 76.53, 76.1, 76.43, 76.88, 76.16, 76.54),
}
TABLE_9 = {
    "moco": (75.03, 76.38, 76.67, 77.36, 77.21),
    "simsiam": (72.43, 73.38, 75.56, 75.75, 75.84),
}
RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def cells(table, crops, others):
    """Returns the sweep's cells of a table, for each method and maximum area r."""
    return [
        {
            "name": f"{method}_{crops}_{ratio}",
            "config": f"configs/stl10_{method}.py:logo",
            "overrides": {f"crops.{crops}_crops": (2, 64, (0.08, ratio)), **others},
            "published": published,
        }
        for method, row in table.items()
        for ratio, published in zip(RATIOS, row, strict=False)
    ]


SWEEP = {
    "metrics": ("knn/k20_t0.07/top1", "knn/k200_t0.1/top1"),
    "seeds": (0,),
    "cells": [
        *cells(TABLE_8, "local", {"crops.global_crops": (2, 64, (0.4, 1.0))}),
        *cells(TABLE_9, "global", {"crops.local_crops": (2, 64, (0.08, 1.0))}),
    ],
}
