"""A drawing is brought to where MNIST's digits are, so MNIST's digits themselves stay where they are."""

import pytest
import torch
from torch.nn import functional as F

from src.playground.drawing import like_mnist


def drawn_elsewhere(digit: torch.Tensor, size: int, top: int, left: int) -> torch.Tensor:
    """A digit (28, 28) enlarged to ``size`` and put somewhere on a canvas of 400 × 500."""
    canvas = torch.zeros(400, 500)
    canvas[top : top + size, left : left + size] = F.interpolate(digit[None, None], (size, size), mode="area")[0, 0]
    return canvas


@pytest.mark.parametrize(("size", "top", "left"), [(280, 0, 0), (280, 120, 220), (56, 300, 7), (300, 3, 50)])
def test_a_real_digit_drawn_anywhere_and_of_any_size_comes_back(real_digits, size, top, left):
    images, _ = real_digits
    found = torch.stack([like_mnist(drawn_elsewhere(image[0], size, top, left)) for image in images[:64]])
    assert found.shape == (64, 1, 28, 28) and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1
    off = (found - images[:64]).abs().mean((1, 2, 3))
    nothing = images[:64].mean((1, 2, 3))
    assert (off < 0.2 * nothing).float().mean() > 0.95  # a pixel off would be half of the digit


def test_how_dark_the_ink_is_does_not_matter(real_digits):
    digit = drawn_elsewhere(real_digits[0][0, 0], 280, 40, 10)
    assert torch.allclose(like_mnist(digit * 0.2), like_mnist(digit * 255), atol=1e-6)
    assert like_mnist(digit).max() == 1


def test_a_thin_line_keeps_its_proportions_and_its_centre():
    canvas = torch.zeros(300, 300)
    canvas[20:280, 200:213] = 1  # 260 high, 13 wide
    image = like_mnist(canvas)[0]
    rows, columns = (image > 0).any(1), (image > 0).any(0)
    assert (rows.sum(), columns.sum()) == (20, 1)
    assert columns.nonzero().item() == 14
    assert rows.nonzero()[0].item() in (4, 5)


def test_a_lopsided_drawing_stays_inside():
    canvas = torch.zeros(100, 100)
    canvas[0, :] = 0.01
    canvas[:, :2] = 1  # all the mass on the left, a faint line to the right
    image = like_mnist(canvas)[0]
    assert (image > 0).any(0).sum() == 20


def test_other_images_than_mnists():
    canvas = torch.zeros(50, 50)
    canvas[10:40, 10:40] = 1
    image = like_mnist(canvas, (3, 32, 32))
    assert image.shape == (3, 32, 32)
    assert torch.equal(image[0], image[2])
    assert (image[0] > 0).any(0).sum() == round(32 * 20 / 28)


def test_nothing_is_no_drawing():
    with pytest.raises(ValueError, match="nothing is drawn"):
        like_mnist(torch.zeros(9, 9))
