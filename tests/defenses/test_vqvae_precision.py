import pytest
import torch

from src.defenses import VQVAEPurifier
from src.models import VQVAE


def purified(images, **arguments):
    torch.manual_seed(1)
    vqvae = VQVAE(
        hidden=16, residual_hidden=4, num_embeddings=1, embedding_dim=8
    )  # one code: rounding cannot choose another
    with torch.no_grad():
        return VQVAEPurifier(vqvae, **arguments)(images)


def test_bfloat16_rounds_and_no_more(images):
    exact, rounded = purified(images), purified(images, precision="bfloat16")
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.allclose(rounded, exact, atol=0.02)
    assert torch.equal(purified(images, precision="float32"), exact)


def test_another_precision_is_refused(images):
    with pytest.raises(ValueError, match="float32 or bfloat16"):
        purified(images, precision="float16")
