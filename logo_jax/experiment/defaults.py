"""Fields that are chosen from the images and the memory, if a config leaves them open.

If `auto` of a config is True, a field is open if it has the value `AUTO` (-1), or
"auto" for the stem and () for the kNN settings; `configs/folder_moco.py` leaves all of
these fields open:

    field                    value
    data.canvas              the longest side of the images, rounded up to a multiple of
                             16, from 32 to 640 px; for larger images 512 px
    crops.global_crops       side: 0.7 of the typical short side, rounded down to a
                             multiple of 32, from 64 to 224 px; for images below 96 px,
                             32 or 64 px. Of a crop of the mean area, 0.7, that is 0.84
                             of the side, so few crops are enlarged.
    crops.local_crops        side: 3/7 of the global crops' side as on ImageNet (96 and
                             224 px), rounded to a multiple of 16, 32 px or more
    encoder.stem             that of the starting weights (imagenet for a file); without
                             weights, cifar for global crops up to 64 px, otherwise
                             imagenet
    augment.blur_prob        0 for global crops up to 64 px, as on CIFAR-10, otherwise
                             0.5
    monitor.crop             the side of global crops
    monitor.resize           the same up to 64 px, otherwise 8/7 of it
    data.batch_size          the largest power of two that is at most 256, at most an
                             eighth of the images (but 32 is allowed), and fits the
                             memory; a multiple of the devices and groups of batch norm
    method.queue_size        4,096 or the whole batches of an epoch, if these are fewer;
                             a multiple of the keys that a step adds, at least these
    train.num_epochs         200, or more up to 1,000 for 3,000 steps, or fewer for 50
                             million images in total; times train.epochs_factor
    train.log_every_steps    a 150th of the steps, at most 20
    monitor.knn_every_steps  a twentieth of the steps, 25 or more
    train.checkpoint_every_steps    the same, at most 1,000
    monitor.train_examples   all images, or 20,000 if there are more
    monitor.test_examples    all images, or 5,000 if there are more
    monitor.knn              k = 20 (temperature 0.07) and 200 (0.1), each at most a
                             fifth of the bank

A value that a flag or the config gives is kept, and the others follow from it.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from logo_jax.configs.base import OPEN, is_open

LARGEST_BATCH, LARGEST_QUEUE = 256, 4096
BANK, QUERIES = 20_000, 5_000
EPOCHS, MOST_EPOCHS = 200, 1000
FEWEST_STEPS, MOST_IMAGES = 3_000, 50_000_000
NEIGHBORS = ((20, 0.07), (200, 0.1))


class Facts(NamedTuple):
    """What fields are chosen from.

    Attributes:
        num_images: number of training images.
        short: typical short side of the images in pixels.
        longest: longest side of the images in pixels.
        bank: number of labeled training images for kNN; 0 if there is no kNN.
        queries: number of labeled test images; 0 if there is no kNN.
        unit: number of which the batch size is a multiple: devices times groups of
            batch norm.
        fewest: smallest batch size; twice the unit if batch norm has groups.
        stem: stem of the starting weights; "" if there are none.
    """

    num_images: int
    short: int
    longest: int
    bank: int = 0
    queries: int = 0
    unit: int = 1
    fewest: int = 2
    stem: str = ""


# for checking a config before its images are known: those of ImageNet-100
USUAL = Facts(126_689, 375, 500, bank=126_689, queries=5_000)


class _Choice:
    """A config whose open fields get values one after another."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = copy.deepcopy(dict(config))
        self.fields: dict[str, Any] = {}

    def settle(self, field: str, value: Any) -> Any:
        """Gives a field this value if it is open, and returns the value it has."""
        group, name = field.split(".")
        present = value_of(self.config, field)
        if not is_open(field, present):
            return present
        self.config[group][name] = self.fields[field] = settled(present, value)
        return self.fields[field]

    def side(self, field: str, side: int) -> int:
        """As `settle`, for the side of crops."""
        crops = self.settle(field, side)
        is_valid = isinstance(crops, tuple) and len(crops) == 3
        return crops[1] if is_valid and isinstance(crops[1], int) else side

    def number(self, field: str, value: int) -> int:
        """As `settle`; returns `value` if the field does not have a number above 0."""
        found = self.settle(field, value)
        return found if isinstance(found, int) and found > 0 else value


def value_of(config: Mapping[str, Any], field: str) -> Any:
    """Returns the value of a field GROUP.NAME; None if the config does not have it."""
    group, name = field.split(".")
    fields = config.get(group)
    return fields.get(name) if isinstance(fields, Mapping) else None


def settled(present: Any, value: Any) -> Any:
    """Returns the value of an open field after a choice; of crops, the side is chosen.

    >>> settled((2, -1, (0.4, 1.0)), 96), settled(-1, 5)
    ((2, 96, (0.4, 1.0)), 5)
    """
    is_crops = isinstance(present, tuple) and bool(present)
    return (present[0], value, *present[2:]) if is_crops else value


def open_fields(config: Mapping[str, Any]) -> list[str]:
    """Returns the names of the fields of a config that are to be chosen."""
    if not config.get("auto"):
        return []
    return [field for field in OPEN if is_open(field, value_of(config, field))]


def usual(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config whose open fields have the values for ImageNet-100.

    With these values a config can be checked before its images are known.
    """
    if not open_fields(config):
        return dict(config)
    return choose(config, USUAL, lambda config: LARGEST_BATCH)[0]


def choose(
    config: Mapping[str, Any],
    facts: Facts,
    most_images: Callable[[Mapping[str, Any]], int],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Chooses the open fields of a config by the rules of this module.

    Args:
        config: the config as nested mappings.
        facts: what the fields are chosen from.
        most_images: function from a config, of which the sizes of crops are chosen, to
            the number of images of a step that fit the memory; called only to choose a
            batch size.

    Returns:
        The config with values for all fields, and the chosen values by dotted name.
    """
    choice = _Choice(config)
    _choose_sizes(choice, facts)
    batch_size = _choose_batch(choice, facts, most_images)
    _choose_length(choice, facts, batch_size)
    bank = choice.settle("monitor.train_examples", BANK * (facts.bank > BANK))
    choice.settle("monitor.test_examples", QUERIES * (facts.queries > QUERIES))
    bank = min(bank or facts.bank, facts.bank) if isinstance(bank, int) else facts.bank
    choice.settle("monitor.knn", _neighbors(bank))
    return choice.config, choice.fields


def _choose_sizes(choice: _Choice, facts: Facts) -> None:
    canvas = 16 * -(-facts.longest // 16)
    # to reduce an image takes longer than to decode one of this size (performance.md)
    choice.settle("data.canvas", max(canvas, 32) if canvas <= 640 else 512)
    size = facts.short if facts.short < 96 else round(0.7 * facts.short)
    size = 32 * min(max(size // 32, 1), 7)
    size = choice.side("crops.global_crops", size)
    choice.side("crops.local_crops", 16 * max(round(3 / 7 * size / 16), 2))
    is_small = size <= 64
    choice.settle("encoder.stem", facts.stem or ("cifar" if is_small else "imagenet"))
    choice.settle("augment.blur_prob", 0.0 if is_small else 0.5)
    crop = choice.number("monitor.crop", size)
    choice.settle("monitor.resize", crop if is_small else round(8 / 7 * crop))


def _choose_batch(
    choice: _Choice, facts: Facts, most_images: Callable[[Mapping[str, Any]], int]
) -> int:
    if "data.batch_size" in open_fields(choice.config):
        most = min(LARGEST_BATCH, most_images(choice.config))
        most = min(most, max(facts.num_images // 8, 32), facts.num_images)
        # at least two groups of batch norm with two images each, or two images
        units = max(most // facts.unit, -(-facts.fewest // facts.unit))
        power = 2 ** (units.bit_length() - 1)
        choice.settle("data.batch_size", facts.unit * power)
    batch_size = choice.number("data.batch_size", LARGEST_BATCH)
    per_epoch = max(1, facts.num_images // batch_size)
    keys = _keys_per_image(choice.config)
    steps = max(1, min(LARGEST_QUEUE // batch_size, per_epoch) // keys)
    choice.settle("method.queue_size", steps * keys * batch_size)
    return batch_size


def _keys_per_image(config: Mapping[str, Any]) -> int:
    """Returns how many keys of an image MoCo adds to its queue in a step.

    All global crops have keys; with the pairing one_way, only one of them has. Crops
    that are invalid are refused later.
    """
    all_views = value_of(config, "method.encode_unused_views")
    if config.get("pairing") == "one_way" and not all_views:
        return 1
    crops = value_of(config, "crops.global_crops")
    return max(1, crops[0]) if crops and isinstance(crops[0], int) else 1


def _choose_length(choice: _Choice, facts: Facts, batch_size: int) -> None:
    per_epoch = max(1, facts.num_images // batch_size)
    epochs = max(EPOCHS, min(50 * -(-FEWEST_STEPS // per_epoch // 50), MOST_EPOCHS))
    epochs = max(1, min(epochs, MOST_IMAGES // facts.num_images))
    times = choice.number("train.epochs_factor", 1)
    epochs = choice.number("train.num_epochs", times * epochs)
    steps = choice.number("train.num_steps", epochs * per_epoch)
    choice.settle("train.log_every_steps", min(max(steps // 150, 1), 20))
    every = choice.settle("monitor.knn_every_steps", max(steps // 20, 25))
    every = every if isinstance(every, int) and every > 0 else 1000
    choice.settle("train.checkpoint_every_steps", min(every, 1000))


def _neighbors(bank: int) -> tuple[tuple[int, float], ...]:
    """Returns the settings of kNN for a bank of this size."""
    most = max(1, bank // 5) if bank else LARGEST_BATCH
    settings = {min(k, most): temperature for k, temperature in reversed(NEIGHBORS)}
    return tuple(sorted(settings.items()))
