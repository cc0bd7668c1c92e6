"""Our batched K-means against scikit-learn's and a textbook's, which take one image after the other."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.benchmarks.harness import Contender, Measurement, Task, compete
from tests.benchmarks.parts import Settings, test_images

NEEDS: tuple[str, ...] = ()
CLUSTERS, ITERATIONS = 20, 20
ABOUT = (
    "K-means on the pixels of each image, k = 20, 20 iterations, on the first 1,000 clean test images of MNIST, "
    "the same on all sides. Result: the mean over images of the within-cluster sum of squares (lower is better). "
    "scikit-learn: `KMeans(20, n_init=1, max_iter=20)`, k-means++, one image after the other; it stops when the "
    "centers move by less than its `tol`, ours makes all 20 iterations. NumPy: Lloyd's algorithm as a textbook has "
    "it, from 20 random pixels. One core: BLAS, OpenMP and torch limited to one thread. All cores: joblib over "
    "images."
)


def measure(settings: Settings) -> Iterator[Measurement]:
    """One core against scikit-learn and NumPy, all cores against scikit-learn under joblib."""
    number = settings.size(1000, 20)
    x, _ = test_images(settings, number)
    pixels = x.flatten(1).numpy()

    def inertia(compressed: np.ndarray, seconds: float) -> str:
        return f"{float(np.square(compressed - pixels).sum(1).mean()):.4f}"

    def task(cores: str) -> Task:
        return Task("kmeans", f"k = 20, {cores}", "ms an image", 1e3 / number, inertia)

    one = [
        Contender("scikit-learn", lambda: _on_one_core(_sklearn(pixels))),
        Contender("NumPy loop", lambda: _on_one_core(lambda: _each(_lloyd, pixels))),
    ]
    yield from compete(task("one core"), Contender("ours", lambda: _on_one_core(_ours(x))), one, settings.rounds)
    parallel = Contender("scikit-learn, joblib", lambda: _sklearn_parallel(pixels))
    yield from compete(task("all cores"), Contender("ours", lambda: _ours(x)), [parallel], settings.rounds)


def _ours(x: Any) -> Callable[[], np.ndarray]:
    import torch

    from src.defenses import KMeansCompression

    purifier = KMeansCompression(CLUSTERS, ITERATIONS)

    def run() -> np.ndarray:
        with torch.no_grad():
            return purifier(x).flatten(1).numpy()

    return run


def _each(compress: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> np.ndarray:
    return np.stack([compress(image) for image in pixels])


def _sklearn(pixels: np.ndarray) -> Callable[[], np.ndarray]:
    import sklearn.cluster  # noqa: F401  # whether it is there

    return lambda: _each(sklearn_kmeans, pixels)


def sklearn_kmeans(image: np.ndarray) -> np.ndarray:
    """One image's pixels (P,), each replaced by its center."""
    from sklearn.cluster import KMeans

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer colours than clusters
        kmeans = KMeans(CLUSTERS, n_init=1, max_iter=ITERATIONS, random_state=0).fit(image[:, None])
    return kmeans.cluster_centers_[kmeans.labels_, 0]


def _sklearn_parallel(pixels: np.ndarray) -> Callable[[], np.ndarray]:
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=-1)
    return lambda: np.stack(pool(delayed(sklearn_kmeans)(image) for image in pixels))


def _lloyd(image: np.ndarray) -> np.ndarray:
    """Lloyd's algorithm on one image's pixels (P,), started at random pixels."""
    centers = np.random.default_rng(0).choice(image, CLUSTERS, replace=False)
    for _ in range(ITERATIONS):
        nearest = np.abs(image[:, None] - centers[None, :]).argmin(1)
        for k in range(CLUSTERS):
            if (nearest == k).any():
                centers[k] = image[nearest == k].mean()
    return centers[np.abs(image[:, None] - centers[None, :]).argmin(1)]


def _on_one_core(run: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    def limited() -> np.ndarray:
        with one_core():
            return run()

    return limited


@contextmanager
def one_core() -> Iterator[None]:
    """One thread for BLAS, OpenMP and torch."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
