"""One image, in every form that people have it in."""

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Transpose

from src.defended import DefendedClassifier
from src.defenses import Binarize, Identity
from src.models import Classifier
from src.single_image import as_batch


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)


@pytest.fixture
def colour() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (20, 32, 3), dtype=np.uint8)


def test_one_grey_image_is_the_same_in_every_form(grey):
    expected = torch.from_numpy(grey)[None, None] / 255
    fractions = grey.astype(np.float32) / 255
    tensor = torch.from_numpy(fractions)
    forms = [Image.fromarray(grey), grey, grey[..., None], grey[None], fractions, fractions.astype(np.float64)]
    forms += [torch.from_numpy(grey), tensor, tensor[None], tensor[None, None], tensor.double()]
    for form in forms:
        batch = as_batch(form)
        assert batch.dtype == torch.float32
        assert torch.allclose(batch, expected, atol=1e-7)


def test_one_coloured_image_is_the_same_in_every_form(colour):
    expected = torch.from_numpy(colour).permute(2, 0, 1)[None] / 255
    opaque = Image.fromarray(np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)]))
    for form in (Image.fromarray(colour), opaque, colour, colour.transpose(2, 0, 1), expected, expected[0]):
        assert torch.equal(as_batch(form), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_an_image_is_turned_as_its_exif_says(colour, orientation, mode, tmp_path):
    """A camera stores what it saw lying on its side, and a note of how to turn it."""
    image = Image.fromarray(colour).convert(mode)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    upright = {
        **{2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE},
        **{6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90},
    }
    turned = image.transpose(upright[orientation]) if orientation in upright else image
    plain = Image.fromarray(np.asarray(turned.convert("L" if mode == "L" else "RGB")))  # without the note
    with Image.open(tmp_path / "turned.png") as opened:
        assert torch.equal(as_batch(opened), as_batch(plain))
        assert opened.getexif()[0x0112] == orientation, "the image that was given has changed"


@pytest.mark.parametrize("mode", ["LA", "L"])
def test_a_grey_picture_with_transparency_that_hides_nothing_is_grey(grey, mode, tmp_path):
    picture = Image.fromarray(np.minimum(grey, 254))
    expected = as_batch(picture)
    picture.convert(mode).save(tmp_path / "it.png", **{"transparency": 255} if mode == "L" else {})
    with Image.open(tmp_path / "it.png") as opened:
        assert torch.equal(as_batch(opened), expected)


def test_sixteen_bits_are_refused_with_transparency_as_without(tmp_path):
    """PIL would take every value above 255 for white."""
    Image.fromarray(np.full((28, 28), 1000, np.uint16)).save(tmp_path / "it.png", transparency=7)
    with Image.open(tmp_path / "it.png") as opened, pytest.raises(ValueError, match="mode I;16"):
        as_batch(opened)


REFUSED = {
    "uint8 of 0 and 1": (np.eye(28, dtype=np.uint8), "multiply by 255"),
    "a path": ("cat.png", "str"),
    "nothing": (None, "NoneType"),
    "0 to 255 as floats": (np.full((28, 28), 255.0), r"in \[0, 1\]; got values from 255"),
    "negative": (torch.full((1, 28, 28), -0.1), "got values from -0.1"),
    "NaN": (torch.full((1, 28, 28), torch.nan), "nan"),
    "whole numbers": (np.zeros((28, 28), dtype=np.int64), "int64"),
    "truth values": (torch.zeros(28, 28, dtype=torch.bool), "bool"),
    "a batch": (torch.zeros(2, 1, 28, 28), r"\(2, 1, 28, 28\)"),
    "no pixels": (torch.zeros(1, 0, 28), "0, 28"),
    "two channels": (torch.zeros(2, 28, 28), r"\(2, 28, 28\)"),
    "16 bits": (Image.fromarray(np.zeros((28, 28), dtype=np.uint16)), "mode I;16"),
    "transparent": (Image.new("RGBA", (28, 28)), "transparent"),
}


@pytest.mark.parametrize(("image", "named"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_in_one_line(image, named):
    with pytest.raises(ValueError, match=named) as error:
        as_batch(image)
    assert "\n" not in str(error.value)


def test_a_defended_classifier_says_what_an_image_is(real_digits, fit):
    images, _ = real_digits
    defended = DefendedClassifier(fit(Binarize()), Binarize())
    for image in images[:5]:
        said = defended.predict(Image.fromarray((image[0] * 255).round().byte().numpy()))
        logits = defended(image[None])[0]
        assert said.label == logits.argmax()
        assert said.confidence == pytest.approx(logits.softmax(0).max().item())
        assert said.probabilities.sum().item() == pytest.approx(1)


def test_an_image_of_another_size_is_refused_in_one_line(small_net):
    defended = DefendedClassifier(small_net, Identity())
    for shape in ((1, 20, 20), (3, 28, 28)):
        with pytest.raises(ValueError, match="does not suit") as error:
            defended.predict(torch.rand(shape))
        assert "\n" not in str(error.value)


def test_our_classifier_says_what_size_it_takes():
    with pytest.raises(ValueError, match=r"\(1, 32, 32\) does not suit these networks: 1 × 28 × 28 is what"):
        DefendedClassifier(Classifier().eval(), Identity()).predict(torch.rand(1, 32, 32))
