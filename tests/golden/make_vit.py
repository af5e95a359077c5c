"""Writes tests/golden/data/vit.npz: features of torchvision's vision transformer.

    python -m tests.golden.make_vit

It needs torch and torchvision, which the tests do not. Positions are those of MoCo v3
(facebookresearch/moco-v3@vits.py), computed here. Weights and images are drawn from
NumPy's RandomState, whose streams are the same in all versions, so the file contains
only the outputs. The file of this repository is of torchvision 0.29.1, torch 2.14.1.
"""

import numpy as np

from tests.golden.torch_names import DATA

SIDE, PATCH, CHANNELS, HEADS, DEPTH = 28, 2, 24, 3, 2  # a grid of 14 x 14 patches


def draw(number, shape):
    """Returns normal numbers; the stream is that of the tensor with this number."""
    return np.random.RandomState(number).standard_normal(shape).astype(np.float32)


def shapes():
    """Returns the shapes of the state_dict, without positions, in its order."""
    c = CHANNELS
    found = {"class_token": (1, 1, c), "conv_proj.weight": (c, 3, PATCH, PATCH)}
    found["conv_proj.bias"] = (c,)
    for i in range(DEPTH):
        layer = f"encoder.layers.encoder_layer_{i}"
        found |= {f"{layer}.ln_1.{x}": (c,) for x in ("weight", "bias")}
        attention = f"{layer}.self_attention"
        found[f"{attention}.in_proj_weight"] = (3 * c, c)
        found[f"{attention}.in_proj_bias"] = (3 * c,)
        found[f"{attention}.out_proj.weight"] = (c, c)
        found[f"{attention}.out_proj.bias"] = (c,)
        found |= {f"{layer}.ln_2.{x}": (c,) for x in ("weight", "bias")}
        found |= {f"{layer}.mlp.0.weight": (4 * c, c), f"{layer}.mlp.0.bias": (4 * c,)}
        found |= {f"{layer}.mlp.3.weight": (c, 4 * c), f"{layer}.mlp.3.bias": (c,)}
    return found | {f"encoder.ln.{x}": (c,) for x in ("weight", "bias")}


def weights():
    """Returns the tensors of the network by name.

    Matrices are large enough for attention that is far from uniform.
    """
    drawn = {}
    for number, (name, shape) in enumerate(shapes().items()):
        x = draw(number, shape)
        if len(shape) > 1:
            drawn[name] = x * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            is_scale = "ln" in name and name.endswith("weight")
            drawn[name] = np.float32(is_scale) + np.float32(0.2) * x
    return drawn


def images():
    return draw(1000, (3, SIDE, SIDE, 3))


def tokens():
    return draw(1001, (2, 5, CHANNELS))


def main():
    import torch
    from torchvision.models.vision_transformer import VisionTransformer

    def moco_v3_positions(side):
        place = torch.arange(side, dtype=torch.float64)
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        quarter = CHANNELS // 4
        speed = 10_000 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
        of_rows, of_columns = (x.reshape(-1, 1) * speed for x in (rows, columns))
        waves = [of_rows.sin(), of_rows.cos(), of_columns.sin(), of_columns.cos()]
        of_class_token = torch.zeros(1, CHANNELS, dtype=torch.float64)
        return torch.cat([of_class_token, torch.cat(waves, 1)])[None].float()

    model = VisionTransformer(SIDE, PATCH, DEPTH, HEADS, CHANNELS, 4 * CHANNELS)
    model.heads = torch.nn.Identity()
    model.eval()
    positions = model.encoder.pos_embedding
    del model.encoder.pos_embedding
    theirs = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    assert list(theirs.items()) == list(shapes().items())
    drawn = {name: torch.from_numpy(x) for name, x in weights().items()}
    model.load_state_dict(drawn)
    model.encoder.pos_embedding = torch.nn.Parameter(moco_v3_positions(SIDE // PATCH))
    assert positions.shape == model.encoder.pos_embedding.shape
    with torch.no_grad():
        nchw = torch.from_numpy(images().transpose(0, 3, 1, 2).copy())
        block = model.encoder.layers[0]
        outputs = {"block": block(torch.from_numpy(tokens())), "features": model(nchw)}
    arrays = {name: x.numpy() for name, x in outputs.items()}
    np.savez_compressed(DATA / "vit.npz", **arrays)


if __name__ == "__main__":
    main()
