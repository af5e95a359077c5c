"""MIT-67 indoor scenes, which stock TFDS does not have: 6,700 photos, 67 scenes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from logo_jax.data.builders.archives import stream_members
from logo_jax.data.builders.downloads import Published

CLASS_NAMES = (
    *("airport_inside", "artstudio", "auditorium", "bakery", "bar", "bathroom"),
    *("bedroom", "bookstore", "bowling", "buffet", "casino", "children_room"),
    *("church_inside", "classroom", "cloister", "closet", "clothingstore"),
    *("computerroom", "concert_hall", "corridor", "deli", "dentaloffice"),
    *("dining_room", "elevator", "fastfood_restaurant", "florist", "gameroom"),
    *("garage", "greenhouse", "grocerystore", "gym", "hairsalon", "hospitalroom"),
    *("inside_bus", "inside_subway", "jewelleryshop"),
    *("kindergarden", "kitchen"),  # codespell:ignore kindergarden
    *("laboratorywet", "laundromat", "library", "livingroom", "lobby"),
    *("locker_room", "mall", "meeting_room", "movietheater", "museum", "nursery"),
    *("office", "operating_room", "pantry", "poolinside", "prisoncell"),
    *("restaurant", "restaurant_kitchen", "shoeshop", "stairscase", "studiomusic"),
    *("subway", "toystore", "trainstation", "tv_studio", "videostore"),
    *("waitingroom", "warehouse", "winecellar"),
)
_IMAGES = "http://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar"
_LISTS = {
    "train": "https://web.mit.edu/torralba/www/TrainImages.txt",
    "test": "https://web.mit.edu/torralba/www/TestImages.txt",
}
_CITATION = r"""@inproceedings{quattoni2009indoor,
  title={Recognizing Indoor Scenes},
  author={Quattoni, Ariadna and Torralba, Antonio},
  booktitle={IEEE Conference on Computer Vision and Pattern Recognition},
  year={2009},
}"""


class Mit67(Published, tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the images of MIT-67's official train and test lists, unchanged.

    No checksums of the files are published; the number of images is checked instead.
    """

    name = "mit67"
    VERSION = tfds.core.Version("1.0.0")
    unchecked_urls = (_IMAGES, *_LISTS.values())

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "Photographs of 67 indoor scenes: 5,360 training images (about 80 per "
                "scene) and 1,340 test images (about 20 per scene), as the authors "
                "list them."
            ),
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://web.mit.edu/torralba/www/indoor.html",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[Any, Any]:
        archive = self.fetch(dl_manager, _IMAGES)
        lists = {split: self.fetch(dl_manager, url) for split, url in _LISTS.items()}
        return {
            split: self._generate_examples(archive, file)
            for split, file in lists.items()
        }

    def _generate_examples(
        self, archive: Path, names_file: Path
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields images from lines such as `gameroom/bt_132294gameroom2.jpg`."""
        members = [
            f"Images/{name}" for name in names_file.read_text().splitlines() if name
        ]
        for member, content in stream_members(archive, members):
            _, scene, file = member.split("/")
            name = f"{scene}/{file}"
            yield name, {"image": content, "label": scene, "file_name": name}
