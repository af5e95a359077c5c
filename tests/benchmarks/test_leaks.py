"""`benchmarks.leaks`: which growth is reported as a leak."""

import jax.numpy as jnp
import pytest

from benchmarks.leaks import Sample, complaints, taken

STEPS = range(0, 2001, 100)


@pytest.mark.parametrize(
    ("sample", "found"),
    [
        (lambda step: Sample(step, 900 + min(step, 200), 50, min(step, 9)), []),
        (lambda step: Sample(step, 900 + step % 300 / 50, 50, 9), []),
        (lambda step: Sample(step, 900 + step / 50, 50, 9), ["memory grows by 20.0"]),
        (lambda step: Sample(step, 900, step // 100, 9), ["arrays grow from 2 to 20"]),
        (lambda step: Sample(step, 900, 50, step), ["programs grow from 200 to 2000"]),
    ],
)
def test_growth_after_the_warm_up_is_reported(sample, found):
    lines = complaints([sample(step) for step in STEPS])
    assert [
        line[: len(start)] for line, start in zip(lines, found, strict=True)
    ] == found


def test_a_sample_counts_memory_and_live_arrays():
    before = taken(0, 0)
    held = jnp.ones((64, 2**18)) + 1  # 64 MiB
    held.block_until_ready()
    after = taken(0, 0)
    assert after.arrays >= before.arrays + 1
    assert after.rss > before.rss + 32
