"""Vector quantization with an exponential-moving-average codebook."""

from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from src.straight_through import straight_through


class Quantized(NamedTuple):
    """What :class:`EMAQuantizer` returns."""

    values: Tensor  #: nearest codes, shape of the input; the gradient passes straight through
    indices: Tensor  #: which codes, (N, H, W), int64
    commitment: Tensor  #: mean squared distance of the input to its codes, scalar; pulls the encoder only


class EMAQuantizer(nn.Module):
    """Replaces every D-vector of a feature map by its nearest code. van den Oord et al., arXiv:1711.00937.

    Codes follow the encoder by the moving averages of appendix A.1 instead of by gradients:

        n_k ← γ n_k + (1 − γ) Σ 1[z → k],    m_k ← γ m_k + (1 − γ) Σ_{z → k} z,    e_k = m_k / n_k,

    with n_k Laplace-smoothed by ``epsilon``. The first training batch initializes all codes with vectors drawn from
    it. A code whose n_k falls below ``dead_code_threshold`` is dead and restarts at a vector of the current batch.

    In ``eval()`` nothing changes. The gradient passes straight through in both modes, so that an attack that
    differentiates through a trained model is not stopped by the quantizer.

    Of several processes that train together (``torch.distributed``) each sums over its own part of the batch and all
    go on with the sums over the whole, so that their codebooks stay one. New codes come from the first one's part.

    Args:
        num_embeddings: number of codes K.
        embedding_dim: length D of a code.
        decay: γ, in [0, 1).
        epsilon: Laplace smoothing of n_k, > 0.
        dead_code_threshold: expected number of vectors a batch under which a code counts as dead; 0 never revives.

    Examples:
        >>> quantizer = EMAQuantizer(num_embeddings=2, embedding_dim=1).eval()
        >>> quantizer.codebook.copy_(torch.tensor([[0.0], [1.0]]))
        tensor([[0.],
                [1.]])
        >>> quantized = quantizer(torch.tensor([[[[0.2, 0.9]]]]))
        >>> quantized.values, quantized.indices
        (tensor([[[[0., 1.]]]]), tensor([[[0, 1]]]))
    """

    codebook: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    initialized: Tensor

    def __init__(
        self,
        num_embeddings: int = 512,
        embedding_dim: int = 64,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        dead_code_threshold: float = 0.05,
    ) -> None:
        super().__init__()
        self.decay, self.epsilon, self.dead_code_threshold = decay, epsilon, dead_code_threshold
        self.register_buffer("codebook", torch.randn(num_embeddings, embedding_dim))
        self.register_buffer("cluster_size", torch.ones(num_embeddings))
        self.register_buffer("cluster_sum", self.codebook.clone())
        self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))
        self._initialized_before = False

    def forward(self, z: Tensor) -> Quantized:
        """Quantize ``z``, shape (N, D, H, W); computed in float32 whatever the autocast precision."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            vectors = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])  # (N·H·W, D)
            if self.training and not self._has_codes():
                self._initialize(vectors.detach())
            flat_indices = self._nearest(vectors.detach())
            indices = flat_indices.view(z.shape[0], *z.shape[2:])
            values = F.embedding(indices, self.codebook).permute(0, 3, 1, 2)
            if self.training:
                self._update(vectors.detach(), flat_indices)
            return Quantized(straight_through(values, z), indices, F.mse_loss(z, values))

    def _nearest(self, vectors: Tensor) -> Tensor:
        """argmin_k ‖v − e_k‖² = argmin_k ½‖e_k‖² − v·e_k, for (M, D) vectors; (M,) indices."""
        half_norms = self.codebook.square().sum(1) / 2
        return torch.addmm(half_norms, vectors, self.codebook.T, alpha=-1).argmin(1)

    def _has_codes(self) -> bool:
        """Whether the codes come from data. Asked of the buffer until it says so, and then no more: a GPU would have to
        answer at every step."""
        self._initialized_before = self._initialized_before or bool(self.initialized)
        return self._initialized_before

    @torch.no_grad()
    def _initialize(self, vectors: Tensor) -> None:
        self._restart(torch.ones_like(self.cluster_size, dtype=torch.bool), vectors)
        self.initialized.fill_(True)

    @torch.no_grad()
    def _update(self, vectors: Tensor, indices: Tensor) -> None:
        """One step of the moving averages, then of the dead codes. The sums are taken over the whole batch, all
        processes' parts of it."""
        num_embeddings = len(self.codebook)
        counts = _count(indices, num_embeddings)
        sums = torch.zeros_like(self.cluster_sum).index_add_(0, indices, vectors)
        if _is_distributed():
            distributed.all_reduce(counts)
            distributed.all_reduce(sums)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.cluster_sum.lerp_(sums, 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.epsilon) / (total + num_embeddings * self.epsilon) * total
        self.codebook.copy_(self.cluster_sum / smoothed.unsqueeze(1))
        self._restart(self.cluster_size < self.dead_code_threshold, vectors)

    def _restart(self, dead: Tensor, vectors: Tensor) -> None:
        """Move the codes marked in ``dead`` (K,) to vectors drawn from (M, D) ``vectors``, counted once each. What is
        dead is so in all processes; what the first one draws, all take."""
        # One is drawn for every code, dead or not: a number that depends on the data would make a GPU wait for it.
        drawn = vectors[torch.randint(len(vectors), (len(dead),), device=vectors.device)]
        if _is_distributed():
            distributed.broadcast(drawn, src=0)
        self.codebook.copy_(torch.where(dead.unsqueeze(1), drawn, self.codebook))
        self.cluster_sum.copy_(torch.where(dead.unsqueeze(1), drawn, self.cluster_sum))
        self.cluster_size.masked_fill_(dead, 1.0)


class Unquantized(nn.Module):
    """In the place of :class:`EMAQuantizer`, for an autoencoder without codes."""

    def forward(self, z: Tensor) -> Quantized:
        """``z`` (N, D, H, W) as it is, no indices (N, 0, 0), nothing to pay."""
        return Quantized(z, torch.empty(len(z), 0, 0, dtype=torch.int64, device=z.device), z.new_zeros(()))


def _is_distributed() -> bool:
    """Whether this process trains together with others."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def _count(indices: Tensor, num_embeddings: int) -> Tensor:
    """How often each code stands in ``indices`` (M,); (num_embeddings,), float32. Not by bincount, for which a GPU
    waits to find out how long its result is."""
    ones = torch.ones(len(indices), device=indices.device)
    return torch.zeros(num_embeddings, device=indices.device).index_add_(0, indices, ones)


def code_usage(indices: Tensor, num_embeddings: int) -> tuple[Tensor, Tensor]:
    """How many codes are at work.

    Args:
        indices: code indices of any shape.
        num_embeddings: size K of the codebook.

    Returns:
        perplexity exp(−Σ p log p) of their frequencies, in [1, K], and the number of codes used at all; scalars.

    Examples:
        >>> code_usage(torch.tensor([0, 1, 0, 1]), num_embeddings=8)
        (tensor(2.), tensor(2))
    """
    frequency = _count(indices.flatten(), num_embeddings) / indices.numel()
    perplexity = torch.special.entr(frequency).sum().exp()
    return perplexity, (frequency > 0).sum()
