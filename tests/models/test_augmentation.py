"""What is done to training images before they are disturbed."""

import pytest
import torch
from torch.nn import functional as F

from src.models.augmentation import shifted, warped


def test_images_are_shifted_each_its_own_way_by_whole_pixels(real_digits):
    x = real_digits[0][:64]
    seen, moves = shifted(x, 1), []
    for image, whole in zip(seen, F.pad(x, (1, 1, 1, 1)), strict=True):
        fits = [(i, j) for i in range(3) for j in range(3) if torch.equal(image, whole[:, i : i + 28, j : j + 28])]
        assert len(fits) == 1
        moves += fits
    assert set(moves) == {(i, j) for i in range(3) for j in range(3)}
    assert torch.equal(shifted(x, 0), x)


def test_images_are_warped_each_its_own_way_and_stay_as_grey_as_they_were(real_digits):
    x = real_digits[0][:200]
    torch.manual_seed(0)
    seen = warped(x, 0.15)
    assert seen.shape == x.shape and seen.min() >= 0 and seen.max() <= 1
    assert not any(torch.equal(image, other) for image, other in zip(seen, x, strict=True))
    assert (warped(x[:1].expand(20, -1, -1, -1), 0.15).diff(dim=0).abs().amax((1, 2, 3)) > 0.2).all()
    grey, before = (((images > 0.2) & (images < 0.8)).float().mean() for images in (seen, x))
    assert grey.item() == pytest.approx(before.item(), rel=0.15)
    assert F.mse_loss(warped(x, 1e-4), x) < 0.01  # about the centre, and the right way up
    assert torch.equal(warped(x, 0), x)


def test_a_warp_moves_no_point_further_than_its_matrix_can():
    x = torch.zeros(300, 1, 28, 28)
    x[:, :, 13:15, 23:25] = 1  # (0, 10) pixels from the centre
    torch.manual_seed(0)
    seen = warped(x, 0.15)
    mass = seen.sum((1, 2, 3))
    places = torch.arange(28) - 13.5
    off = torch.stack([(seen.sum((1, 3)) * places).sum(1), (seen.sum((1, 2)) * places).sum(1)]) / mass
    assert off[0].abs().max() < 2.5 and off[0].abs().max() > 1  # 0.15 of 10 pixels, and what the inverse adds
    assert 7.5 < off[1].min() < 9.5 and 10.5 < off[1].max() < 12.8
