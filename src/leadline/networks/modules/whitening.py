"""A first convolution that whitens: filters from the patches of images, instead of random ones."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules.layers import StandardisedConv2d

PIXELS = 5 * 2**20
"""Maximum number of pixels of the images that patches are taken from: those of 5,120 images of 32x32."""

EPSILON = 5e-4
"""What is added to the mean square of patches along an eigenvector before it is scaled to 1 (Jordan 2024)."""

_AT_A_TIME = 2**18  # pixels whose patches are in memory


def find_first_convolution(network: nn.Module, channels: int) -> nn.Conv2d:
    """Return the first convolution of a network, which takes the image itself.

    Args:
        network: a network whose modules are in the order in which they are applied.
        channels: of an image.

    Raises:
        SpecError: there is none, or filters of its weights would not whiten.

    Example:
        >>> from leadline.networks import cifar_resnet
        >>> from leadline.networks.modules import build
        >>> find_first_convolution(build(cifar_resnet(8), (3, 32, 32), classes=10), channels=3)
        Conv2d(3, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    """
    layers = (module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear))
    first = next(layers, None)
    if not isinstance(first, nn.Conv2d) or first.in_channels != channels or first.groups != 1:
        raise SpecError(
            "whitening needs a network whose first layer is a convolution of the image, without groups; leave it out"
        )
    if isinstance(first, StandardisedConv2d):
        raise SpecError("whitening sets filters whose mean weight_standardisation removes; use one of them")
    if first.out_channels < 2:
        raise SpecError("whitening needs two filters or more in the first convolution, got 1; make it wider")
    return first


@torch.no_grad()
def whiten(convolution: nn.Conv2d, images: Float[Tensor, "n c h w"]) -> None:
    """Set the filters of a convolution so that their outputs for images are uncorrelated, with mean square 1.

    The filters are eigenvectors of the matrix of mean products of a patch's values, each divided by the square root of
    its eigenvalue, which is the mean square of patches along it. Those of the largest eigenvalues come first, then the
    same ones with opposite sign, for an activation that drops one sign; filters beyond these keep their values, as do
    biases. The opposite filters are as large, and the outputs of the first half are those that are uncorrelated.

    Args:
        convolution: what to change, in place; with m filters for patches of d values, the first 2 min(m // 2, d) are
            set.
        images: as the network sees them, at least as large as the kernel.

    Raises:
        SpecError: the images are smaller than the kernel.

    Source: Page 2019, "How to train your ResNet 8: Bag of tricks", which takes the eigenvectors; Jordan 2024, "94% on
    CIFAR-10 in 3.29 seconds on a single GPU", section 3.2, with both signs and this scale.

    Example:
        >>> from torch import nn
        >>> convolution = nn.Conv2d(1, 8, 2, bias=False)
        >>> images = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).cumsum(-1)
        >>> whiten(convolution, images)
        >>> outputs = convolution(images)[:, :4].transpose(0, 1).reshape(4, -1)
        >>> torch.allclose(outputs @ outputs.T / outputs.shape[1], torch.eye(4), atol=0.01)
        True
    """
    weight = convolution.weight
    _, channels, height, width = weight.shape
    if images.shape[2] < height or images.shape[3] < width:
        shown = "x".join(map(str, images.shape[2:]))
        raise SpecError(f"whitening: images of {shown} have no patch of {height}x{width}, the kernel's size")
    products = torch.zeros(channels * height * width, channels * height * width, dtype=torch.float64)
    count = 0
    for patches in _patches(images, (height, width)):
        products += patches @ patches.T
        count += patches.shape[1]
    values, vectors = torch.linalg.eigh(products / count)
    filters = (vectors / (values.clamp(min=0) + EPSILON).sqrt()).T.flip(0)  # of the largest eigenvalue first
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    filters = (filters * largest.sign()).reshape(-1, channels, height, width)  # an eigenvector has no sign of its own
    used = min(len(weight) // 2, len(filters))
    weight[: 2 * used] = torch.cat([filters[:used], -filters[:used]]).to(weight)


def _patches(images: Tensor, kernel: tuple[int, int]) -> Iterator[Float[Tensor, "d patches"]]:
    """Yield the patches of images, all that lie within one, for some images at a time."""
    for some in torch.split(images, max(1, _AT_A_TIME // images[0, 0].numel())):
        yield F.unfold(some.double().cpu(), kernel).transpose(0, 1).flatten(1)
