"""A purifier and a defended classifier can be traced, exported and written as ONNX, for any batch size."""

import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from src.defended import DefendedClassifier
from src.defenses import AutoencoderPurifier, Binarize, Chain, VQVAEPurifier
from src.models import VAE, VQVAE, Autoencoder, CertifiedVQVAE, Classifier
from src.models.denoiser import Denoiser

pytestmark = pytest.mark.slow

Function = Callable[[Tensor], Tensor]
Export = Callable[[nn.Module, Tensor, Path], Function]

SIZES = (1, 3, 17)


class Codes(nn.Module):
    """Images to the indices of their codes."""

    def __init__(self, vqvae: VQVAE) -> None:
        super().__init__()
        self.vqvae = vqvae

    def forward(self, x: Tensor) -> Tensor:
        return self.vqvae.quantize(x).indices


@pytest.fixture(scope="module")
def vqvae() -> VQVAE:
    torch.manual_seed(0)
    network = VQVAE(hidden=16, residual_hidden=4, num_embeddings=32, embedding_dim=4)
    network.train()(torch.rand(16, 1, 28, 28))
    nn.init.constant_(network.decoder[-1].bias, 0.5)  # else all reconstructions may be clipped to black
    return network.eval().requires_grad_(False)


def traced(module: nn.Module, x: Tensor, folder: Path) -> Function:
    torch.jit.trace(module, x).save(folder / "traced.pt")
    return torch.jit.load(folder / "traced.pt")


def exported(module: nn.Module, x: Tensor, folder: Path) -> Function:
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, folder / "exported.pt2")
    return torch.export.load(folder / "exported.pt2").module()


def _from_onnx(path: Path) -> Function:
    session = onnxruntime.InferenceSession(path)
    return lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0])


def onnx(module: nn.Module, x: Tensor, folder: Path) -> Function:
    path = folder / "network.onnx"
    torch.onnx.export(
        module, (x,), path, dynamo=True, dynamic_shapes=({0: "n"},), input_names=["images"], verbose=False
    )
    return _from_onnx(path)


def onnx_by_the_older_exporter(module: nn.Module, x: Tensor, folder: Path) -> Function:
    path = folder / "network.onnx"
    axes = {"images": {0: "n"}, "found": {0: "n"}}
    torch.onnx.export(
        module, (x,), path, dynamo=False, dynamic_axes=axes, input_names=["images"], output_names=["found"]
    )
    return _from_onnx(path)


def _not_a_tie(vqvae: VQVAE, x: Tensor) -> Tensor:
    """(N, H, W): the nearest code is clearly nearer than the second, so that rounding does not choose."""
    features = vqvae.features(x).permute(0, 2, 3, 1)
    nearest = torch.cdist(features, vqvae.quantizer.codebook).topk(2, largest=False).values
    return nearest[..., 1] - nearest[..., 0] > 1e-5


@pytest.mark.parametrize("export", [traced, exported, onnx, onnx_by_the_older_exporter])
def test_what_is_exported_answers_as_pytorch_does(export: Export, vqvae: VQVAE, tmp_path: Path) -> None:
    defended = DefendedClassifier(Classifier(widths=(4, 8), hidden=16).eval(), Chain(Binarize(), VQVAEPurifier(vqvae)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own, of what will be deprecated
        codes, logits = (export(each, torch.rand(2, 1, 28, 28), tmp_path) for each in (Codes(vqvae), defended))
        for size in SIZES:
            x = torch.rand(size, 1, 28, 28)
            clear = _not_a_tie(vqvae, x)
            assert clear.float().mean() > 0.95
            assert torch.equal(codes(x)[clear], Codes(vqvae)(x)[clear])
            x = x.round()
            clear = _not_a_tie(vqvae, x).all(2).all(1)
            assert clear.any() or size == 1
            assert torch.allclose(logits(x)[clear], defended(x)[clear], atol=1e-5)


@pytest.mark.parametrize("export", [traced, exported, onnx, onnx_by_the_older_exporter])
@pytest.mark.parametrize("kind", [Autoencoder, VAE])
def test_so_do_the_vqvaes_rivals(export: Export, kind: type[Denoiser], tmp_path: Path) -> None:
    purifier = AutoencoderPurifier(kind(hidden=16, residual_hidden=4, dimension=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = export(purifier, torch.rand(2, 1, 28, 28), tmp_path)
        for size in SIZES:
            x = torch.rand(size, 1, 28, 28)
            assert torch.allclose(function(x), purifier(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("export", [traced, exported, onnx])
def test_so_does_the_vqvae_with_a_proof(export: Export, tmp_path: Path) -> None:
    network = CertifiedVQVAE(convolutions=((4, 5, 2, 2),), linears=(16,), style_codes=4, hidden=8)
    purifier = AutoencoderPurifier(network)
    function = export(purifier, torch.rand(2, 1, 28, 28), tmp_path)
    for size in SIZES:
        x = torch.rand(size, 1, 28, 28).round()
        assert torch.allclose(function(x), purifier(x), atol=1e-5)


def test_a_network_outside_of_a_training_has_no_trainer() -> None:
    with pytest.raises(AttributeError, match="trainer"):
        _ = Classifier().trainer
