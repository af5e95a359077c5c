"""Crops of Pillow images as torchvision makes them on the CPU, without torchvision."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from logo_jax.augment import AugmentSpec

Box: TypeAlias = tuple[int, int, int, int]  # top, left, height, width
Finish: TypeAlias = Callable[[Image.Image], Any]

_BLENDS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def decode(stored: bytes | Path) -> Image.Image:
    """Decodes an image, given as bytes or a file, to RGB."""
    file = io.BytesIO(stored) if isinstance(stored, bytes) else stored
    with Image.open(file) as picture:
        return picture.convert("RGB")


def cut(picture: Image.Image, boxes: Sequence[Box], size: int) -> list[Image.Image]:
    """Returns the crops of boxes, resized to `size` x `size` pixels."""
    # Crops before resizing, as torchvision does; `resize(box=...)` is a third slower.
    inside = (
        picture.crop((left, top, left + width, top + height))
        for top, left, height, width in boxes
    )
    return [part.resize((size, size), Image.Resampling.BILINEAR) for part in inside]


def augment(
    picture: Image.Image, rng: np.random.Generator, spec: AugmentSpec, finish: Finish
) -> Any:
    """Augments a crop with the probabilities of `spec`, then calls `finish`.

    Solarization, vertical flips and turns are left out: no config that is timed has
    them.

    Source: pytorch/vision@torchvision/transforms/_functional_pil.py; the blur is that
    of
        facebookresearch/moco@moco/loader.py.
    """
    happens = rng.random(4) < (
        spec.jitter_prob,
        spec.grayscale_prob,
        spec.blur_prob,
        spec.flip_prob,
    )
    if happens[0]:
        picture = jitter(picture, rng, spec.jitter)
    if happens[1]:
        picture = picture.convert("L").convert("RGB")
    if happens[2]:
        sigma = rng.uniform(*spec.blur_sigma)
        picture = picture.filter(ImageFilter.GaussianBlur(sigma))
    if happens[3]:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return finish(picture)


def jitter(
    picture: Image.Image, rng: np.random.Generator, strengths: Sequence[float]
) -> Image.Image:
    """Changes brightness, contrast, saturation and hue at random, in random order."""
    *blends, hue = strengths
    for step in rng.permutation(4):
        if step == len(_BLENDS):
            picture = turn_hue(picture, rng.uniform(-hue, hue))
        else:
            strength = blends[step]
            factor = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength)
            picture = _BLENDS[step](picture).enhance(factor)
    return picture


def turn_hue(picture: Image.Image, shift: float) -> Image.Image:
    """Shifts all hues by `shift` of a full circle, in steps of 1/255."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = Image.fromarray(np.asarray(hue) + np.uint8(int(shift * 255) % 256))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def to_array(spec: AugmentSpec) -> Finish:
    """Returns a function that converts a crop to float32 [3, h, w], normalized."""
    mean, std = np.array((spec.mean, spec.std), np.float32)

    def finish(picture: Image.Image) -> np.ndarray:
        pixels = np.asarray(picture).astype(np.float32)
        pixels /= np.float32(255)
        pixels -= mean
        pixels /= std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    return finish


def to_tensor(spec: AugmentSpec) -> Finish:
    """Like `to_array`, by PyTorch: torchvision's ToTensor and Normalize."""
    import torch

    torch.set_num_threads(1)  # as in the workers of a DataLoader
    mean, std = (torch.tensor(x)[:, None, None] for x in (spec.mean, spec.std))

    def finish(picture: Image.Image) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
        return pixels.to(torch.float32).div(255).sub_(mean).div_(std)

    return finish
