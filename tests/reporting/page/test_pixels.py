"""Images packed for the page."""

import base64
import gzip

import numpy as np
import torch

from src.encoded_images import encode_images
from src.reporting.page.pixels import Pixels


def stack(count: int, seed: int, channels: int = 1) -> dict:
    return encode_images(torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(seed)))


def unpacked(pixels: Pixels) -> np.ndarray:
    return np.frombuffer(gzip.decompress(base64.b64decode(pixels.packed())), np.uint8)


def test_a_stack_is_kept_once_and_comes_back_whole():
    pixels = Pixels()
    assert [pixels.add(stack(3, seed)) for seed in (0, 1, 0, 1)] == [0, 1, 0, 1]
    assert pixels.shapes() == [[3, 1, 8, 8]] * 2
    expected = [base64.b64decode(stack(3, seed)["uint8"]) for seed in (0, 1)]
    assert unpacked(pixels).tobytes() == b"".join(expected)


def test_what_does_not_fit_is_cut_to_the_first_images_of_each_stack():
    pixels = Pixels(budget=5 * 64 * 4)  # five images of three colours or one: 3 + 1 channels an image of each stack
    pixels.add(stack(10, 0, channels=3))
    pixels.add(stack(4, 1))
    assert pixels.shapes() == [[5, 3, 8, 8], [4, 1, 8, 8]]
    assert len(unpacked(pixels)) == 5 * 192 + 4 * 64
    assert unpacked(pixels)[960:].tobytes() == base64.b64decode(stack(4, 1)["uint8"])


def test_no_stack_is_left_without_an_image():
    pixels = Pixels(budget=1)
    pixels.add(stack(10, 0))
    assert pixels.shapes() == [[1, 1, 8, 8]]
    assert Pixels().packed() and not Pixels().shapes()
