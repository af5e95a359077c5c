"""A trained backbone as a function from images to features."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from logo_jax import zoo
from logo_jax.augment.color import AugmentSpec
from logo_jax.augment.multi_crop import prepare_eval
from logo_jax.configs import base, base_imagenet
from logo_jax.data import readers
from logo_jax.data.canvas import decode_failure, read_eval_crops
from logo_jax.data.eval_crops import in_chunks
from logo_jax.data.load import load_unsplit, on_disk
from logo_jax.data.sources.base import (
    DEFAULT_DECODING,
    NO_LABEL,
    ArraySource,
    Decoding,
    ImageSource,
    Record,
    with_kept_values,
)
from logo_jax.data.sources.tables import is_table
from logo_jax.evaluation.features import Features, extract_batches
from logo_jax.experiment import classifier_folder, pretrained
from logo_jax.experiment.config import parse
from logo_jax.interop import huggingface, pretrained_files
from logo_jax.parallel.mesh import (
    all_devices,
    batch_sharding,
    make_mesh,
    place,
    replicate,
)
from logo_jax.storage.paths import as_path, local_path, parse_paths
from logo_jax.training import workdir

RESIZE, CROP = 256, 224  # as usual for published ImageNet weights

Images: TypeAlias = np.ndarray | jax.Array | str | Path | Sequence[Any]


@struct.dataclass
class ImageEncoder:
    """A trained backbone as a function from images to features.

    `encoder(images)` reads, resizes, crops and encodes images of any kind on all
    devices. `encoder.apply` is pure, for programs in JAX: `jax.jit(encoder.apply)`. An
    encoder is a pytree whose leaves are its variables.

    Attributes:
        variables: variables of the module: "params" and "batch_stats".
        module: Flax module of the backbone, called with normalized images and `train`.
        augment: mean and standard deviation of the normalization.
        resize: short side of the resized image, in pixels; 0: images are neither
            resized nor cropped.
        crop: side of the center crop, in pixels.
        source: name of the weights, such as "step 100 of runs/photos".
        decoding: how image files are decoded: as by the run.
        step: training step of the run's checkpoint; None for a file of weights.
    """

    variables: Any
    module: Any = struct.field(pytree_node=False)
    augment: AugmentSpec = struct.field(pytree_node=False)
    resize: int = struct.field(pytree_node=False)
    crop: int = struct.field(pytree_node=False)
    source: str = struct.field(pytree_node=False)
    decoding: Decoding = struct.field(pytree_node=False, default=DEFAULT_DECODING)
    step: int | None = struct.field(pytree_node=False, default=None)

    def __repr__(self) -> str:
        numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables))
        sizes = f"resize={self.resize}, crop={self.crop}"
        name = type(self.module).__name__
        return f"ImageEncoder({name} of {numbers:,} numbers, {self.source}, {sizes})"

    def apply(self, images: Any) -> jax.Array:
        """Computes the features of images that are already resized and cropped.

        Args:
            images: [b, h, w, c] with stored values of the run's data, by default uint8
                of 3 channels; or floating-point numbers in [0, 1], unless the stored
                values are such numbers of any range.

        Returns:
            Features [b, f], float32.
        """
        images = jnp.asarray(images)
        if images.dtype == (self.decoding.dtype or "uint8"):
            normalized = prepare_eval(images, self.augment)
        elif not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"images are {images.dtype}, but must be "
                f"{self.decoding.dtype or 'uint8'}, as the images of the run"
            )
        else:
            mean, std = (
                jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)
                for values in (self.augment.mean, self.augment.std)
            )
            normalized = (images.astype(jnp.float32) - mean) / std
        features = self.module.apply(self.variables, normalized, train=False)
        return features.astype(jnp.float32)

    def __call__(
        self,
        images: Images,
        *,
        batch_size: int = 256,
        damaged: dict[int, str] | None = None,
    ) -> np.ndarray:
        """Computes the features of images.

        Args:
            images: a uint8 array [n, h, w, 3], or an array of the channels and the type
                of the run's images; a sequence of such images of any sizes; a sequence
                of paths of image files; the path of one; or the path of a folder, whose
                files are taken in the order of their paths.
            batch_size: number of images per batch, over all devices.
            damaged: if given, images that cannot be decoded have no row, and their
                numbers and the reasons are added to it.

        Returns:
            Features [n, f], float32.

        Raises:
            FileNotFoundError: if a folder or file does not exist.
            ValueError: if images cannot be decoded and `damaged` is None, or differ in
                size and are not resized, or if `batch_size` is not a multiple of the
                number of devices.
        """
        source = image_source(images, self.decoding)
        found = self.features(source, batch_size=batch_size, damaged=damaged)
        return found.features

    def features(
        self,
        images: ImageSource,
        *,
        batch_size: int = 256,
        damaged: dict[int, str] | None = None,
    ) -> Features:
        """Computes the features and reads the labels of all images of a source.

        Args:
            images: the images.
            batch_size: images per batch over all devices; fewer for a small source.
            damaged: if given, images that cannot be decoded are left out, and their
                numbers and the reasons are added to it.

        Raises:
            ValueError: as for `__call__`.
        """
        parts = self.feature_batches(images, batch_size=batch_size, damaged=damaged)
        return Features(*map(np.concatenate, zip(*parts, strict=True)))

    def feature_batches(
        self,
        images: ImageSource,
        *,
        batch_size: int = 256,
        damaged: dict[int, str] | None = None,
    ) -> Iterator[Features]:
        """Yields what `features` returns for one batch of images after another.

        All damaged images before the last image of a batch are in `damaged` by then.
        """
        mesh = make_mesh()
        devices = mesh.devices.size
        if batch_size < 1 or batch_size % devices:
            raise ValueError(
                f"batch_size={batch_size} must be a multiple of the {devices} devices; "
                "use e.g. 256"
            )
        batch_size = min(batch_size, -(-len(images) // devices) * devices)
        encoder = replicate(self, mesh)
        sharding = batch_sharding(mesh)
        for part in extract_batches(
            lambda pixels: {"": _apply(encoder, place(pixels, sharding))},
            _CenterCrops(images, self.resize, self.crop, damaged),
            batch_size=batch_size,
        ):
            yield part[""]


@jax.jit
def _apply(encoder: ImageEncoder, images: jax.Array) -> jax.Array:
    return encoder.apply(images)


def load_image_encoder(
    source: str | Path,
    *,
    step: int | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    resize: int | None = None,
    crop: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    unpickle: bool = False,
) -> ImageEncoder:
    """Loads the encoder of a run, of a file of weights, or of the zoo.

    Args:
        source: folder of a run; or a name of the zoo, such as
            "cifar10-resnet18w16-moco-logo" (`logo_jax.zoo.names()`), which has its own
            sizes, mean and std; or of a classifier, whose encoder was fine-tuned; or a
            safetensors file of a ResNet or vision transformer with the tensor names of
            torchvision, timm or another program that `interop.pretrained_files` knows;
            or a folder of Hugging Face transformers.
        step: training step of the checkpoint of a run; the newest one if None.
        seed: seed of a run with several seeds.
        encoder: which encoder of a run: "online", the trained one (if None); "target",
            the momentum encoder of MoCo or BYOL; "ema", the average of the trained one
            that `train.ema` keeps.
        resize: short side of the resized image, in pixels, and 0 for images that are
            used as they are; if None, that of the run's config, or 256 for a file.
        crop: side of the center crop; if None, that of the config, or 224 for a file.
        mean: mean of red, green and blue in [0, 1], for a file; ImageNet's if None. Of
            N values, the images have N channels of 8 bits, and weights of 3 channels
            are changed to N (`interop.channels`).
        std: standard deviation of the channels, for a file; ImageNet's if None.
        unpickle: whether a PyTorch file may be read, which is a pickle; only its
            tensors are.

    Raises:
        FileNotFoundError: if there is no such run or file.
        ValueError: if it cannot be read, the run has no such checkpoint, seed or
            encoder, or an argument does not apply to the source.
    """
    path = as_path(source)
    given = {"resize": resize, "crop": crop}
    if known := zoo.find(source):
        path = known.weights
        given = {x: y if y is not None else getattr(known, x) for x, y in given.items()}
        mean = known.mean if mean is None else mean
        std = known.std if std is None else std
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist; give the folder of a run, a file of weights, or a "
            f"name of the zoo: {', '.join(zoo.names())}"
        )
    sizes = {name: value for name, value in given.items() if value is not None}
    of_file = {"mean": mean, "std": std}
    of_run = {"step": step, "seed": seed, "encoder": encoder}
    if classifier_folder.is_classifier(path):
        _require_none("a classifier", **of_file, **of_run)
        loaded = of_classifier(classifier_folder.read(path), path, sizes)
    elif path.is_dir() and not huggingface.has_weights(path):
        _require_none("a run", **of_file)
        loaded = _of_run(path, step, seed, encoder or pretrained.ONLINE, sizes)
    else:
        _require_none("a file of weights", **of_run)
        loaded = _of_file(path, sizes, mean, std, unpickle)
    require_sizes(loaded)
    return loaded


def require_sizes(encoder: ImageEncoder) -> None:
    """Raises an error unless the center crop fits into the resized images.

    Raises:
        ValueError: if it does not.
    """
    fits = 0 < encoder.crop <= encoder.resize or encoder.crop == encoder.resize == 0
    if not fits:
        raise ValueError(
            f"crop={encoder.crop} must be from 1 to resize={encoder.resize}, the short "
            "side of resized images; give both, e.g. 224 and 256, or 0 and 0 to use "
            "images of one size as they are"
        )


def of_classifier(
    found: classifier_folder.ClassifierFolder, folder: Path, sizes: dict[str, int]
) -> ImageEncoder:
    """Returns the encoder of a classifier, with other sizes if they are given."""
    return ImageEncoder(
        variables=found.variables,
        module=found.module,
        augment=found.augment,
        resize=sizes.get("resize", found.resize),
        crop=sizes.get("crop", found.crop),
        source=f"{found.source} ({folder})",
        decoding=found.decoding,
    )


def _of_run(
    folder: Path,
    step: int | None,
    seed: int | None,
    encoder: str,
    sizes: dict[str, int],
) -> ImageEncoder:
    config = workdir.read_config(folder)
    changed = {**config, "monitor": {**config["monitor"], **sizes}}
    one_device = make_mesh(all_devices()[:1])
    run = pretrained.from_run(
        folder.absolute(), changed, one_device, step=step, encoder=encoder
    )
    run = run.of_seed(seed)
    monitor = run.spec.config.monitor
    return ImageEncoder(
        variables=run.backbone.variables,
        module=run.backbone.module,
        augment=run.spec.config.augment.policy,
        resize=monitor.resize,
        crop=monitor.crop if monitor.resize else 0,
        source=f"{run.source} of {folder}",
        decoding=run.spec.config.data.location.decoding,
        step=run.step,
    )


def _of_file(
    file: Path,
    sizes: dict[str, int],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    unpickle: bool,
) -> ImageEncoder:
    config = base.get_config("simsiam")
    base_imagenet.set_images(config)
    augment = parse(config.to_dict()).augment.policy
    given = {"mean": mean, "std": std}
    given = {name: tuple(map(float, x)) for name, x in given.items() if x is not None}
    augment = dataclasses.replace(augment, **given)
    channels = len(augment.mean)
    keeps = Decoding(channels=channels, dtype="uint8")
    backbone = pretrained_files.read(file, unpickle=unpickle, channels=channels)
    return ImageEncoder(
        variables=backbone.variables,
        module=backbone.module,
        augment=augment,
        source=str(file),
        resize=sizes.get("resize", RESIZE),
        crop=sizes.get("crop", CROP),
        decoding=DEFAULT_DECODING if channels == 3 else keeps,
    )


def _require_none(source: str, **arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name} does not apply to {source}; remove it")


def image_source(images: Images, decoding: Decoding = DEFAULT_DECODING) -> ImageSource:
    """Returns images of any kind as an `ImageSource`.

    Args:
        images: as for `ImageEncoder.__call__`.
        decoding: how image files are decoded.

    Raises:
        FileNotFoundError: if a folder or file does not exist.
        ValueError: if there are no images, or they are of another kind or type.
    """
    if isinstance(images, str | Path):
        paths = parse_paths(on_disk(str(images)))
        if len(paths) == 1 and paths[0].is_file() and not is_table(paths[0]):
            return _ImageList((paths[0],), decoding)
        return load_unsplit(str(images), decoding=decoding)
    if isinstance(images, np.ndarray | jax.Array):
        return ArraySource(images, origin="the array of images", decoding=decoding)
    return _ImageList(tuple(_stored(image, decoding) for image in images), decoding)


def _stored(image: Any, decoding: Decoding) -> np.ndarray | Path:
    if isinstance(image, str | Path):
        path = local_path(image)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not a file; give paths of image files")
        return path
    pixels = np.asarray(image)
    if decoding.dtype:
        kept = readers.as_image(pixels, decoding.channels)
        return with_kept_values(kept, decoding.dtype)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(
            "each image must be a path or a uint8 array [h, w, 3], got "
            f"{pixels.dtype} {list(pixels.shape)}"
        )
    return pixels


@dataclasses.dataclass(frozen=True)
class _ImageList:
    """`ImageSource` of paths and of arrays of any sizes, without labels."""

    images: tuple[np.ndarray | Path, ...]
    decoding: Decoding
    origin: str = "the list of images"
    num_classes: int = 0
    largest: tuple[int, int] | None = None

    def __post_init__(self):
        if not self.images:
            raise ValueError("the list of images is empty; give at least one image")

    def __len__(self) -> int:
        return len(self.images)

    def records(self, ids: Sequence[int] | np.ndarray) -> list[Record]:
        return [Record(self.images[i], NO_LABEL, self.decoding) for i in ids]

    def name(self, i: int) -> str:
        image = self.images[i]
        return str(image) if isinstance(image, Path) else f"image {i} of {self.origin}"


@dataclasses.dataclass(frozen=True)
class _CenterCrops:
    """Center crops of all images of a source, as `LabeledImages`.

    An image that cannot be decoded is an error, or is left out and added to `damaged`.
    """

    source: ImageSource
    resize: int
    crop: int
    damaged: dict[int, str] | None

    def __len__(self) -> int:
        return len(self.source)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images, uint8 [b, crop, crop, 3], and labels, int32 [b]."""
        read = functools.partial(
            read_eval_crops, self.source, resize=self.resize, crop=self.crop
        )
        for ids, part in in_chunks(read, np.arange(len(self)), threads=0):
            for i in ids[part.failed].tolist():
                reason = decode_failure(self.source, i)
                if self.damaged is None:
                    raise ValueError(
                        f"{self.source.name(i)} cannot be decoded ({reason}); repair "
                        "or remove it, or leave such images out: with found = {}, "
                        "encoder(images, damaged=found) adds their numbers to found"
                    )
                self.damaged[i] = reason
            if not part.failed.all():  # if all failed, the image size is unknown
                yield part.images[~part.failed], part.labels[~part.failed]
        if self.damaged is not None and len(self.damaged) == len(self):
            number, reason = next(iter(self.damaged.items()))
            raise ValueError(
                f"no image of {self.source.origin} can be decoded; "
                f"{self.source.name(number)}: {reason}"
            )
