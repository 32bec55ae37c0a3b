"""A folder of images, sorted into a folder for each class."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from leadline.data.datasets import DATASETS
from leadline.data.encoded_images import EncodedImages
from leadline.data.files import locate
from leadline.data.formats import index
from leadline.data.image_dataset import ImageDataSpec


@DATASETS.register
class ImageFolder(ImageDataSpec):
    """A folder that holds train/<class>/<image>, val and test, or <class>/<image>; see `index.read_index`."""

    name: Literal["imagefolder"] = "imagefolder"
    corrupt: Literal["fail", "skip"] = Field(
        default="fail", description="what to do with images that cannot be decoded"
    )

    def read(self, data_dir: Path, download: bool = True) -> EncodedImages:
        """List the images, each of which can be decoded.

        Raises:
            DataError: the folder is missing or laid out otherwise, or images are corrupt and not to be skipped.
        """
        return index.read_index(locate(self.path, data_dir), self.corrupt == "skip", self.background).encoded_images()

    def identify(self, data_dir: Path) -> dict[str, str]:
        """Return the digest of the images in the folder.

        Raises:
            LeadlineError: as `read`, but not for corrupt images.
        """
        return {self.path: index.identify(locate(self.path, data_dir))}

    def _class_names(self, data_dir: Path) -> tuple[str, ...]:
        return index.class_names(locate(self.path, data_dir))
