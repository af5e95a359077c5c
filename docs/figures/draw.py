"""Draws the pictures of the methods: logo.png, and one .svg for each base method.

python docs/figures/draw.py

The arrows between crops are the pairs of `logo_jax.methods.pairing`.
"""

import pathlib

import matplotlib
import matplotlib.pyplot as plt
import skimage.data
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from logo_jax.methods.pairing import pair_weights

FOLDER = pathlib.Path(__file__).parent
PULL, ONE_WAY, PUSH, PLAIN = "#1a7f37", "#0969da", "#cf222e", "#57606a"
# of the photograph: left, upper, side in pixels; and the place of the crop in the right
# part, in units of its axes
CROPS = {
    "global 1": ((60, 5, 215), (0.2, 0.78)),
    "global 2": ((150, 45, 225), (0.8, 0.78)),
    "local 1": ((135, 72, 78), (0.2, 0.2)),
    "local 2": ((215, 135, 88), (0.8, 0.2)),
}
# boxes of a base method's figure: text and place; arrows: from, to, text
SHARED = {"view 1": (0.08, 0.72), "view 2": (0.08, 0.22), "encoder": (0.33, 0.72)}
FIGURES = {
    "simsiam": (
        {"encoder ": (0.33, 0.22), "predictor": (0.6, 0.72), "−cosine": (0.86, 0.47)},
        [
            ("encoder", "predictor", "z₁"),
            ("predictor", "−cosine", "p₁"),
            ("encoder ", "−cosine", "z₂, no gradient"),
        ],
    ),
    "byol": (
        {
            "moving\naverage": (0.33, 0.22),
            "predictor": (0.6, 0.72),
            "−cosine": (0.86, 0.47),
        },
        [
            ("encoder", "predictor", "z₁"),
            ("predictor", "−cosine", "p₁"),
            ("moving\naverage", "−cosine", "z₂, no gradient"),
        ],
    ),
    "moco": (
        {
            "moving\naverage": (0.33, 0.22),
            "queue": (0.6, 0.22),
            "InfoNCE": (0.86, 0.72),
        },
        [
            ("encoder", "InfoNCE", "query"),
            ("moving\naverage", "queue", "key"),
            ("moving\naverage", "InfoNCE", "positive key"),
            ("queue", "InfoNCE", "negatives"),
        ],
    ),
    "swav": (
        {
            "encoder ": (0.33, 0.22),
            "prototypes": (0.55, 0.47),
            "cross-\nentropy": (0.93, 0.47),
        },
        [
            ("encoder", "prototypes", "z₁"),
            ("encoder ", "prototypes", "z₂"),
            ("prototypes", "cross-\nentropy", "scores of 1,\ncode of 2"),
        ],
    ),
}


def arrow(ax, start, end, color, gaps) -> None:
    """Draws an arrow between two points; `gaps` are its distances to them in points."""
    style = {"arrowstyle": "-|>", "mutation_scale": 18, "lw": 2.5, "color": color}
    style |= dict(zip(("shrinkA", "shrinkB"), gaps, strict=True))
    ax.add_patch(FancyArrowPatch(start, end, **style))


def draw_logo() -> plt.Figure:
    """Returns the figure of LoGo: crops of a photograph, and what moves them."""
    photo = skimage.data.chelsea()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.6), width_ratios=(1.15, 1), facecolor="white"
    )
    left.imshow(photo)
    left.set_title("an image, two global and two local crops")
    left.axis("off")
    right.set(xlim=(-0.1, 1.1), ylim=(0, 1))
    right.axis("off")
    right.set_aspect("equal")
    for name, ((x, y, side), place) in CROPS.items():
        color = PULL if "global" in name else ONE_WAY
        box = {"fill": False, "edgecolor": color, "lw": 2.5}
        left.add_patch(plt.Rectangle((x, y), side, side, **box))
        label = {"color": "white", "fontsize": 9, "va": "top"}
        left.text(x + 3, y + 3, name, backgroundcolor=color, **label)
        half = 0.15 if "global" in name else 0.1
        bounds = [place[0] - half, place[1] - half, 2 * half, 2 * half]
        inset = right.inset_axes(bounds, transform=right.transData)
        inset.imshow(photo[y : y + side, x : x + side], aspect="auto")
        inset.set(xticks=[], yticks=[])
        plt.setp(inset.spines.values(), color=color, linewidth=2.5)
    weights = pair_weights("global_targets", num_global=2, num_local=2)
    places = [place for _, place in CROPS.values()]
    for view, target in zip(*weights.nonzero(), strict=True):
        (x0, y0), (x1, y1) = places[view], places[target]
        if view < 2:  # a global view moves to the other one, which moves to it
            arrow(right, (x0, y0), (0.55 * x0 + 0.45 * x1, y0), PULL, (48, 3))
        else:
            gaps = (36, 46) if x0 == x1 else (46, 62)
            arrow(right, (x0, y0), (x1, y1), ONE_WAY, gaps)
    for x, y in places[2:]:  # the local crops move away from each other
        arrow(right, (x, y), (1.8 * x - 0.4, y), PUSH, (36, 0))
    middle = {"ha": "center", "va": "center", "fontsize": 10}
    middle["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    right.text(0.5, 0.87, "pulled together", color=PULL, **middle)
    right.text(0.5, 0.47, "pulled to the\nglobal crops", color=ONE_WAY, **middle)
    right.text(0.5, 0.2, "pushed apart", color=PUSH, **middle)
    right.set_title("what training does to their embeddings")
    figure.tight_layout()
    return figure


def draw_method(name: str) -> plt.Figure:
    """Returns the figure of a base method with two views."""
    boxes, arrows = FIGURES[name]
    places = SHARED | boxes
    other = "encoder " if "encoder " in boxes else "moving\naverage"
    figure, ax = plt.subplots(figsize=(7, 2.4), facecolor="white")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    labels = {}
    for text, (x, y) in places.items():
        loss = text == list(boxes)[-1]
        color = PULL if loss else "black"
        style = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": color}
        middle = {"ha": "center", "va": "center", "color": color, "zorder": 3}
        labels[text] = ax.text(x, y, text.strip(), bbox=style, fontsize=10, **middle)
    for start, end, text in [("view 1", "encoder", ""), ("view 2", other, ""), *arrows]:
        box = {"patchA": labels[start].get_bbox_patch(), "shrinkA": 2}
        box |= {"patchB": labels[end].get_bbox_patch(), "shrinkB": 2}
        line = {"arrowstyle": "-|>", "color": PLAIN, "mutation_scale": 12}
        ax.annotate("", places[end], places[start], arrowprops=line | box)
        (x0, y0), (x1, y1) = places[start], places[end]
        below = {"ha": "center", "va": "center", "fontsize": 8, "color": PLAIN}
        below["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        ax.text((x0 + x1) / 2, (y0 + y1) / 2, text, **below)
    if other == "moving\naverage":
        line = {"arrowstyle": "-|>", "color": PLAIN, "linestyle": "dotted"}
        ends = {"patchA": labels["encoder"].get_bbox_patch()}
        ends |= {"patchB": labels[other].get_bbox_patch()}
        ax.annotate("", places[other], places["encoder"], arrowprops=line | ends)
    return figure


def main() -> None:
    """Writes all pictures to the folder of this file."""
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "logo_jax"  # the same file each time
    draw_logo().savefig(FOLDER / "logo.png", dpi=120)
    Image.open(FOLDER / "logo.png").quantize(128).save(FOLDER / "logo.png")
    for name in FIGURES:
        figure = draw_method(name)
        figure.savefig(
            FOLDER / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight"
        )


if __name__ == "__main__":
    main()
