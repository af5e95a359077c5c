"""Targets are parsed, and described as their compilers need it."""

import importlib.util

import pytest

from logo_jax.parallel import targets
from logo_jax.parallel.targets import CHIPS, find_target


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [
        ("v5e", "v5e", "1x1"),
        ("V5E:4x4", "v5e", "4x4"),
        ("8xv6e", "v6e", "2x4"),
        ("4xv5p", "v5p", "2x2x1"),
        ("v4:2x2x2", "v4", "2x2x2"),
        ("a100", "a100", "1"),
        ("8xh100", "h100", "8"),
    ],
)
def test_a_target_is_a_kind_with_a_number_or_a_grid(text, name, shape):
    chip, found = targets._parse(text)
    assert (chip.name, found) == (name, shape)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "must be one of v4, v5e, v5p, v6e, h100, h200, a100"),
        ("tpu", "--target=tpu must be one of v4"),
        ("0xh100", "must have a device or more"),
        ("h100:2x2", "use e.g. 4xh100"),
        ("v5e:2x2x2", "use e.g. 4xv5e or v5e:2x2"),
        ("8xv5e:2x4", "use e.g. 4xv5e or v5e:2x2"),
        ("v5p:2x2", "use e.g. 4xv5p or v5p:2x2x2"),
    ],
)
def test_another_target_is_an_error_with_the_list(text, fragment):
    with pytest.raises(ValueError, match="--target=") as error:
        find_target(text)
    assert fragment in str(error.value)


@pytest.mark.parametrize(("text", "extra"), [("v5e", "tpu"), ("h100", "aot-cuda")])
def test_without_its_compiler_a_target_names_the_extra(text, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"pip install -e '.\[{extra}\]'"):
        find_target(text)


def test_stated_peaks_have_the_ratio_and_the_units_of_their_kind():
    """float32 is one pass of bfloat16 on a TPU, and half its rate on a GPU."""
    for chip in CHIPS.values():
        ratio = 1 if chip.extra == "tpu" else 2
        assert chip.bfloat16 == pytest.approx(ratio * chip.float32)
        assert 8e11 < chip.bandwidth < 8e12  # bytes per second


def test_a_gpu_is_described_with_its_own_numbers():
    text = CHIPS["a100"]._description()
    for line in ("core_count: 108", "{ major: 8 }", "memory_bandwidth: 2039000000000"):
        assert line in text
