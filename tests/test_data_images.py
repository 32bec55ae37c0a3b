"""Pictures: damaged and hostile files refused in a few words, random parts and centres as the papers have them."""

import io
import math
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from leadline.data.formats.images import MOST_PIXELS, centre, decode, silence_pillow
from leadline.specs import ResizedCrop


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values.squeeze(2) if channels == 1 else values)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    picture.save(target, kind, **options)
    return target.getvalue()


def png(width: int, height: int) -> bytes:
    """A few bytes that say they are a picture of any size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


# --- decoding


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_what_was_saved_comes_back(kind: str, options: dict[str, object]) -> None:
    picture = noise(13, 7)
    assert np.array_equal(np.asarray(decode(encoded(picture, kind, **options))), np.asarray(picture))


def test_a_jpeg_comes_back_nearly() -> None:
    smooth = noise(4, 3).resize((64, 48), Image.Resampling.BICUBIC)
    found = np.asarray(decode(encoded(smooth, "JPEG", quality=95)), dtype=int)
    assert np.abs(found - np.asarray(smooth)).max() < 30 and np.abs(found - np.asarray(smooth)).mean() < 3


def test_every_mode_becomes_three_colours() -> None:
    grey = decode(encoded(noise(5, 4, "L"), "PNG"))
    assert grey.mode == "RGB" and np.ptp(np.asarray(grey).astype(int), axis=2).max() == 0
    assert decode(encoded(noise(8, 8).convert("CMYK"), "JPEG")).mode == "RGB"


def test_a_background_is_put_behind_transparent_pixels() -> None:
    pixels = noise(5, 4, "RGBA")
    alpha = np.asarray(pixels)[..., 3:] / 255
    for background in ((255, 255, 255), (10, 200, 0)):
        expected = alpha * np.asarray(pixels)[..., :3] + (1 - alpha) * background
        assert np.abs(np.asarray(decode(encoded(pixels, "PNG"), background=background)) - expected).max() <= 1
    clear = noise(5, 4)
    clear.putalpha(0)
    assert np.asarray(decode(encoded(clear, "PNG"))).min() == 255
    assert np.asarray(decode(encoded(clear, "PNG"), grey=True)).min() == 255
    clear.putalpha(255)
    assert np.array_equal(np.asarray(decode(encoded(clear, "PNG"))), np.asarray(clear)[:, :, :3])
    palette = noise(5, 4).quantize(8)
    opaque = np.asarray(palette.convert("RGB")).copy()
    opaque[np.asarray(palette) == 3] = 255
    assert np.array_equal(np.asarray(decode(encoded(palette, "PNG", transparency=3))), opaque)
    grey = noise(5, 4, "L")
    value = int(np.asarray(grey)[0, 0])
    found = np.asarray(decode(encoded(grey, "PNG", transparency=value), grey=True))
    assert np.array_equal(found, np.where(np.asarray(grey) == value, 255, np.asarray(grey)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_of_grey_are_scaled(kind: str) -> None:
    values = np.array([[0, 1, 128, 129], [257, 32_768, 65_406, 65_535]], np.uint16)
    found = np.asarray(decode(encoded(Image.fromarray(values), kind), grey=True))
    assert np.array_equal(found, np.round(values / 257))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_the_colours_of_cmyk(kind: str) -> None:
    for colour in ((255, 0, 0), (0, 160, 30), (200, 200, 200)):
        content = encoded(Image.new("RGB", (16, 16), colour).convert("CMYK"), kind)
        assert np.abs(np.asarray(decode(content)).astype(int) - colour).max() <= 6


def test_a_jpeg_of_photoshop_whose_cmyk_is_inverted() -> None:
    inverted = Image.fromarray(255 - np.asarray(Image.new("RGB", (16, 16), (200, 30, 60)).convert("CMYK")), "CMYK")
    content = encoded(inverted, "JPEG", quality=95)
    if b"Adobe" not in content:
        marker = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)
        content = content[:2] + marker + content[2:]
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(opened.convert("RGB"))
    assert np.array_equal(np.asarray(decode(content)), expected)


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "GIF"])
def test_further_formats(kind: str) -> None:
    picture = noise(13, 7).quantize(16).convert("RGB")
    assert np.array_equal(np.asarray(decode(encoded(picture, kind))), np.asarray(picture))


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_the_first_of_several_frames(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.asarray(decode(content))[0, 0].tolist() == [255, 0, 0]


def test_pillow_does_not_warn() -> None:
    content = png(10_000, 9_000)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(io.BytesIO(content)):
        pass
    with warnings.catch_warnings(record=True) as caught:
        silence_pillow()
        with pytest.raises(ValueError, match="10000 x 9000 pixels are more than"):
            decode(content)
        assert not caught


def test_a_camera_on_its_side() -> None:
    picture = noise(16, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    for kind in ("PNG", "TIFF"):
        found = decode(encoded(picture, kind, exif=exif))
        assert found.size == (8, 16)
        assert np.array_equal(np.asarray(found), np.rot90(np.asarray(picture), -1))
    deep = Image.fromarray(np.arange(0, 64_000, 500, dtype=np.uint16).reshape(8, 16))
    assert decode(encoded(deep, "PNG", exif=exif)).size == (8, 16)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_that_of_pillow(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(noise(7, 5), "PNG", exif=exif)
    with Image.open(io.BytesIO(content)) as opened:
        assert np.array_equal(np.asarray(decode(content)), np.asarray(ImageOps.exif_transpose(opened).convert("RGB")))


def test_odd_values_beside_the_orientation_make_no_image_corrupt() -> None:
    """An orientation of 6 and a resolution of 1/0, which cannot be written back."""
    entries = struct.pack("<HHIHH", 0x112, 3, 1, 6, 0) + struct.pack("<HHII", 0x11A, 10, 1, 38)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + b"\0\0\0\0" + struct.pack("<ii", -1, 0)
    plain = encoded(noise(40, 24), "JPEG")
    content = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert np.array_equal(np.asarray(decode(content)), np.rot90(np.asarray(decode(plain)), -1))


HOSTILE = {
    "empty": (b"", "the file is empty"),
    "text": (b"this is no picture\n" * 9, "not a JPEG, PNG, WebP, BMP, TIFF or GIF file"),
    "other format": (encoded(noise(4, 4), "PPM"), "not a JPEG, PNG, WebP, BMP, TIFF or GIF file"),
    "half a jpeg": (encoded(noise(64, 64), "JPEG")[:1500], "truncated"),
    "half a png": (encoded(noise(64, 64), "PNG")[:5000], "."),
    "half a webp": (encoded(noise(64, 64), "WEBP", lossless=True)[:5000], "."),
    "a header alone": (encoded(noise(64, 64), "JPEG")[:30], "."),
    "a bomb that Pillow warns of": (png(10_000, 9_000), f"10000 x 9000 pixels are more than {MOST_PIXELS:,}"),
    "a bomb of many rows": (png(1, 60_000_000), "1 x 60000000 pixels: a side is longer than 65,535"),
    "a bomb of one row": (png(60_000_000, 1), "60000000 x 1 pixels: a side is longer than 65,535"),
    "a bomb that Pillow refuses": (png(60_000, 60_000), f"more than {MOST_PIXELS:,} pixels"),
    "32 bits": (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), r"more than 16 bits .* \(mode F\)"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_file_is_a_few_words(name: str) -> None:
    content, words = HOSTILE[name]
    with pytest.raises(ValueError, match=words) as caught:
        decode(content)
    assert str(caught.value) and "\n" not in str(caught.value)


@given(st.integers(0, 2000), st.integers(0, 255), st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]))
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_a_changed_byte_is_a_picture_or_a_value_error(position: int, value: int, kind: str) -> None:
    content = bytearray(encoded(noise(24, 24), kind))
    content[position % len(content)] = value
    try:
        assert decode(bytes(content)).mode == "RGB"
    except ValueError as error:
        assert str(error)


# --- the centre


def test_the_centre_is_resizing_then_cropping() -> None:
    picture = noise(64, 48)
    whole = picture.resize((32, 24), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(centre(picture, 16, 24)), np.asarray(whole.crop((8, 4, 24, 20))))


def test_a_picture_of_the_networks_size_is_left_as_it_is() -> None:
    picture = noise(32, 32)
    assert np.array_equal(np.asarray(centre(picture, 32, 32)), np.asarray(picture))


def test_a_very_long_picture_costs_no_more() -> None:
    long = Image.new("RGB", (200_000, 1), (1, 2, 3))
    assert np.array_equal(np.asarray(centre(long, 8, 9)), np.full((8, 8, 3), (1, 2, 3), np.uint8))


# --- random parts


def coordinates(width: int, height: int) -> Image.Image:
    """A picture whose red is the column and whose green is the row."""
    values = np.zeros((height, width, 3), np.uint8)
    values[..., 0], values[..., 1] = np.arange(width), np.arange(height)[:, None]
    return Image.fromarray(values)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**62))
@settings(max_examples=200, deadline=None)
def test_a_part_lies_inside_and_is_of_the_area_and_ratio_asked_for(width: int, height: int, draw: int) -> None:
    crop = ResizedCrop()
    uniform = random.Random(draw).random
    left, top, w, h = crop._part((width, height), uniform)
    assert 0 <= left <= left + w <= width and 0 <= top <= top + h <= height and w > 0 and h > 0
    # whole pixels: half a pixel either way on each side
    assert (w - 0.5) / (h + 0.5) <= crop.ratio[1] * 1.0001 and (w + 0.5) / (h - 0.5) >= crop.ratio[0] * 0.9999
    assert (w + 0.5) * (h + 0.5) >= min(crop.scale[0] * width * height, 0.75 * min(width, height) ** 2)


def test_area_ratio_and_place_are_spread_as_published() -> None:
    crop, size = ResizedCrop(), 1000
    found = np.array([crop._part((size, size), random.Random(draw).random) for draw in range(4000)])
    left, top, width, height = found.T.astype(float)
    ratio = np.log(width / height)
    # those that fit at the first try: for areas up to 3/4 every ratio does, and there areas are uniform
    area = width * height / size**2
    small = area < 0.75
    expected = (0.75 - 0.08) / 2 + 0.08
    assert abs(area[small].mean() - expected) < 4 * (0.67 / math.sqrt(12)) / math.sqrt(small.sum())
    spread = math.log(4 / 3)
    assert abs(ratio[small].mean()) < 4 * (spread / math.sqrt(3)) / math.sqrt(small.sum())
    assert abs(ratio[small].std() - spread / math.sqrt(3)) < 0.02
    place = np.concatenate([left / (size - width + 1e-9), top / (size - height + 1e-9)])
    assert abs(place[np.tile(area < 0.5, 2)].mean() - 0.5) < 0.02


def test_a_picture_that_no_part_fits_gives_its_middle() -> None:
    only = ResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert only._part((100, 20), lambda: 0.5) == (40, 0, 20, 20)
    assert only._part((20, 100), lambda: 0.5) == (0, 40, 20, 20)
    wide = ResizedCrop(scale=(1.0, 1.0), ratio=(2.0, 4.0))
    assert wide._part((100, 100), lambda: 0.5) == (0, 25, 100, 50)


def test_a_part_is_cropped_then_resized() -> None:
    picture, crop = noise(40, 30), ResizedCrop(flip=False)
    for draw in range(20):
        uniform = random.Random(draw).random
        uniform()  # the flip is drawn first
        left, top, width, height = crop._part(picture.size, uniform)
        box = (left, top, left + width, top + height)
        expected = picture.crop(box).resize((12, 12), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(crop.crop(picture, 12, draw)), np.asarray(expected))


def test_half_are_flipped_and_the_flip_moves_nothing_else() -> None:
    picture = coordinates(30, 30)
    flips = 0
    for draw in range(400):
        one = np.asarray(ResizedCrop(flip=False).crop(picture, 10, draw))
        other = np.asarray(ResizedCrop().crop(picture, 10, draw))
        flipped = np.array_equal(other, one[:, ::-1])
        assert flipped or np.array_equal(other, one)
        flips += flipped
    assert abs(flips - 200) < 50  # five standard deviations


def test_the_numbers_are_the_same_for_ever() -> None:
    parts = [ResizedCrop()._part((500, 375), random.Random(draw).random) for draw in (0, 1, 2**61)]
    assert parts == [(29, 1, 432, 372), (217, 50, 216, 177), (34, 1, 378, 318)]
