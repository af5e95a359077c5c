"""SimSiam on a folder of images, from the weights of a ResNet-18 of torchvision.

python -m examples.from_weights resnet18.safetensors photos

torchvision's resnet18 as a .pth file becomes a safetensors file by
python -m logo_jax.convert resnet18.pth --unpickle --out=resnet18.safetensors
"""

import sys

import logo_jax

FIELDS = {
    "data.batch_size": 64,
    "optimizer.learning_rate": 0.02,  # x batch_size / 256; lower than from scratch
    "train.num_epochs": 20,
}


def main(weights: str, folder: str) -> None:
    """Trains and prints how much the features have moved from those of the weights."""
    run = logo_jax.pretrain(
        folder,
        config="folder:baseline",
        workdir="runs/from_weights",
        **FIELDS | {"encoder.weights": weights},
    )
    encoder = run.encoder
    sizes = {"resize": encoder.resize, "crop": encoder.crop}  # the same images
    before = logo_jax.load_encoder(weights, **sizes)(folder)
    after = encoder(folder)
    cosine = (before * after).sum(1) / ((before**2).sum(1) * (after**2).sum(1)) ** 0.5
    print(f"cosine of features before and after: {cosine.mean():.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
