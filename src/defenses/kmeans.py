"""Image compression by K-means on the pixels of each image."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from src.images import ImageCheck
from src.straight_through import straight_through

#: Images clustered together: bounds memory.
CHUNK = 256

Clusters = tuple[Tensor, Tensor]  #: centers (N, k, C), and which of them each pixel belongs to, (N, P, 1)


class KMeansCompression(nn.Module):
    """Replaces every pixel by the nearest of ``k`` colours, found for each image by itself by Lloyd's algorithm.

    Seeding is k-means++ (Arthur & Vassilvitskii 2007); all images share one sequence of random numbers, so the
    result for an image does not depend on its batch. The gradient passes straight through.

    Args:
        k: colours an image, ≥ 1.
        iterations: Lloyd iterations, ≥ 1.
        seed: of the k-means++ random numbers.
        backend: "torch" clusters many images at once; "sklearn" runs :class:`sklearn.cluster.KMeans` on one after
            the other, as a slow reference.

    Examples:
        >>> import torch
        >>> KMeansCompression(k=2)(torch.tensor([[[[0.0, 0.2, 0.8, 1.0]]]]))
        tensor([[[[0.1000, 0.1000, 0.9000, 0.9000]]]])
    """

    def __init__(
        self,
        k: int = 20,
        iterations: int = 20,
        seed: int = 0,
        backend: Literal["torch", "sklearn"] = "torch",
    ) -> None:
        super().__init__()
        if k < 1 or iterations < 1:
            raise ValueError(f"k and iterations must be at least 1; got {k} and {iterations}")
        if backend not in ("torch", "sklearn"):
            raise ValueError(f"backend must be torch or sklearn; got {backend!r}")
        self.k, self.iterations, self.seed, self.backend = k, iterations, seed, backend
        self._check = ImageCheck()

    def forward(self, x: Tensor) -> Tensor:
        """Compressed images of the shape of ``x`` (N, C, H, W); one colour has C values.

        Raises:
            ValueError: ``x`` cannot be images in [0, 1], see :class:`src.images.ImageCheck`.
        """
        self._check(x)
        pixels = _pixels(x.detach())
        chunks = [self._cluster(chunk) for chunk in pixels.split(CHUNK)]
        compressed = [centers.gather(1, cluster.expand(-1, -1, pixels.shape[2])) for centers, cluster in chunks]
        value = torch.cat(compressed).transpose(1, 2).reshape(x.shape) if compressed else x
        return straight_through(value.to(x.dtype), x)

    def surrogate(self, x: Tensor) -> Tensor:
        """Each pixel replaced by the mean of its cluster, the clusters taken as given. At Lloyd's fixed point this is
        the compression itself, and its gradient the true one wherever no pixel is about to change its cluster."""
        pixels = _pixels(x)
        cluster = torch.cat([self._cluster(chunk)[1] for chunk in pixels.detach().split(CHUNK)])
        count, total = _sums(pixels, cluster, self.k)
        return (total / count.clamp_min(1)).gather(1, cluster.expand_as(pixels)).transpose(1, 2).reshape(x.shape)

    def _cluster(self, pixels: Tensor) -> Clusters:
        if self.backend == "sklearn":
            return self._sklearn(pixels)
        centers = seed_centers(pixels, self.k, self.seed)
        if pixels.shape[2] == 1:
            return lloyd_1d(pixels[..., 0], centers[..., 0], self.iterations)
        return lloyd(pixels, centers, self.iterations)

    def _sklearn(self, pixels: Tensor) -> Clusters:
        try:
            from sklearn.cluster import KMeans
        except ImportError as error:
            raise ImportError("backend=sklearn needs scikit-learn: pip install --editable '.[sklearn]'") from error

        centers = np.zeros((len(pixels), self.k, pixels.shape[2]), dtype=np.float32)
        cluster = np.empty((*pixels.shape[:2], 1), dtype=np.int64)
        for i, image in enumerate(pixels.cpu().numpy()):
            k = min(self.k, len(np.unique(image, axis=0)))  # sklearn warns of more clusters than colours
            kmeans = KMeans(k, max_iter=self.iterations, n_init=1, random_state=self.seed).fit(image)
            centers[i, :k], cluster[i, :, 0] = kmeans.cluster_centers_, kmeans.labels_
        return torch.from_numpy(centers).to(pixels.device), torch.from_numpy(cluster).to(pixels.device)


def _pixels(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H·W, C)."""
    return x.flatten(2).transpose(1, 2)


def seed_centers(pixels: Tensor, k: int, seed: int) -> Tensor:
    """Greedy k-means++: each next center is the best of a few pixels drawn with probability ∝ squared distance to the
    nearest center so far. As many are drawn as scikit-learn draws, 2 + ln k.

    Args:
        pixels: (N, P, C).
        k: number of centers.
        seed: the random numbers are the same for every image.

    Returns:
        centers, (N, k, C). Where an image has fewer than k colours the surplus centers repeat one.
    """
    trials = 2 + int(math.log(k))
    uniform = torch.rand(k, trials, generator=torch.Generator().manual_seed(seed)).to(pixels)
    first = pixels[:, int(uniform[0, 0] * pixels.shape[1])]
    centers = [first]
    distance = (pixels - first.unsqueeze(1)).square().sum(2)  # (N, P)
    images = torch.arange(len(pixels), device=pixels.device)
    for numbers in uniform[1:]:
        cumulative = distance.cumsum(1)
        # right=True steps over pixels of distance 0, which are centers already
        index = torch.searchsorted(cumulative, cumulative[:, -1:] * numbers, right=True).clamp_max(pixels.shape[1] - 1)
        candidates = pixels.gather(1, index.unsqueeze(2).expand(-1, -1, pixels.shape[2]))  # (N, trials, C)
        distances = _squared_distances(candidates, pixels)  # (N, trials, P)
        distances = torch.minimum(distance.unsqueeze(1), distances, out=distances)
        best = distances.sum(2).argmin(1)
        centers.append(candidates[images, best])
        distance = distances[images, best]
    return torch.stack(centers, 1)


def lloyd(pixels: Tensor, centers: Tensor, iterations: int) -> Clusters:
    """Lloyd's algorithm on (N, P, C) pixels from (N, k, C) centers.

    A center that no pixel is nearest to stays where it is.
    """
    for _ in range(iterations):
        count, total = _sums(pixels, _nearest(pixels, centers), centers.shape[1])
        centers = torch.where(count > 0, total / count.clamp_min(1), centers)
    return centers, _nearest(pixels, centers)


def _sums(pixels: Tensor, cluster: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """For each of k clusters how many of (N, P, C) pixels are in it, (N, k, 1), and their sum, (N, k, C). By a matrix
    product: on a GPU ``scatter_add`` adds in another order each time, and the defense would count as random."""
    members = (cluster == torch.arange(k, device=pixels.device)).to(pixels.dtype)  # (N, P, k)
    return members.sum(1).unsqueeze(2), members.transpose(1, 2) @ pixels


def _nearest(pixels: Tensor, centers: Tensor) -> Tensor:
    """Index of the center nearest to each of (N, P, C) pixels, (N, P, 1)."""
    return _distances(pixels, centers).argmin(2, keepdim=True)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances of (N, A, C) and (N, B, C), (N, A, B)."""
    if a.shape[2] == 1:  # a fifth of the time that cdist takes on a line
        return (a - b.transpose(1, 2)).square_()
    return _distances(a, b).square_()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances, (N, A, B). Not by a matrix product, whose rounding mistakes close colours for each other."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def lloyd_1d(values: Tensor, centers: Tensor, iterations: int) -> Clusters:
    """Lloyd's algorithm on (N, P) grey values from (N, k) centers.

    On a line clusters are intervals of the sorted values: a step is k binary searches and two differences of
    prefix sums an image, instead of P·k distances.
    """
    ordered, order = values.sort(1)
    prefix = torch.nn.functional.pad(ordered.double().cumsum(1), (1, 0))  # (N, P + 1): sum of the first i values
    centers = centers.sort(1).values
    for _ in range(iterations):
        ends = _interval_ends(ordered, centers)
        count = ends.diff(dim=1)
        total = prefix.gather(1, ends).diff(dim=1).to(centers.dtype)
        centers = torch.where(count > 0, total / count.clamp_min(1), centers)
    ends = _interval_ends(ordered, centers)
    position = torch.arange(values.shape[1], device=values.device).expand_as(values).contiguous()
    cluster = torch.searchsorted(ends[:, 1:].contiguous(), position, right=True).clamp_max(centers.shape[1] - 1)
    return centers.unsqueeze(2), torch.empty_like(cluster).scatter_(1, order, cluster).unsqueeze(2)


def _interval_ends(ordered: Tensor, centers: Tensor) -> Tensor:
    """Where the interval of each of k sorted centers begins and ends in (N, P) ordered values; (N, k + 1)."""
    borders = ((centers[:, 1:] + centers[:, :-1]) / 2).contiguous()
    begin = torch.zeros((len(ordered), 1), dtype=torch.int64, device=ordered.device)
    inner = torch.searchsorted(ordered, borders)
    return torch.cat([begin, inner, torch.full_like(begin, ordered.shape[1])], 1)
