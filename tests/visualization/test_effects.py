"""The figure of paired differences shows which intervals exclude 0."""

import io

from PIL import Image

from logo_jax.visualization import effects
from logo_jax.visualization.effects import Difference

BLUE, GRAY = (53, 102, 200), (107, 114, 128)


def colors(*found):
    with Image.open(io.BytesIO(effects.plot_effects("x", "kNN", found).png)) as image:
        return {color[:3] for _, color in image.getcolors(2**24)}


def test_a_difference_is_blue_if_its_interval_excludes_0_and_gray_otherwise():
    sure = Difference("logo", "baseline", [1.0, 3.0], margin=1.5)
    unsure, single = sure._replace(margin=2.5), Difference("a", "b", [4.0], margin=None)
    assert BLUE in colors(sure)
    assert GRAY not in colors(sure)
    for found in (unsure, single):
        assert GRAY in colors(found)
        assert BLUE not in colors(found)


def test_the_alternative_text_has_the_means():
    found = [Difference("logo", "baseline", [1.0, 3.0], 1.5)]
    assert effects.plot_effects("x", "kNN", found).alt == "logo over baseline +2.00"
