"""NumPy's .npz files as data sets."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.data.labelled import Labelled, LabelledSet, check_range, notes_on
from src.errors import UserError

#: How images and labels of a part may be called: ours (and MedMNIST's), Keras's.
NAMES = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))


def read_npz(path: Path) -> LabelledSet:
    """A data set out of named arrays: ``train_images``, ``train_labels``, ``test_images``, ``test_labels``, or
    ``x_train``, ``y_train``, ``x_test``, ``y_test``.

    Images are uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) with C of 1 or 3, from 0 to 255; labels are whole numbers
    from 0, (N,) or (N, 1). Nothing is unpickled.

    Raises:
        UserError: it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = [_names(part, file.files, path) for part in ("train", "test")]
            arrays = {name: file[name] for pair in names for name in pair}
            aside = sorted(set(file.files) - set(arrays))
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} cannot be read as .npz: {' '.join(str(error).split())}") from error
    train, test = (
        Labelled(_images(arrays[images], f"{path}: {images}"), _labels(arrays[labels], f"{path}: {labels}"))
        for images, labels in names
    )
    check_range(train.images, f"{path}: {names[0][0]}")
    notes = [f"left aside: {', '.join(aside)}"] if aside else []
    return LabelledSet(train, test, (), (*notes, *notes_on(train, test)))


def _names(part: str, arrays: list[str], path: Path) -> tuple[str, str]:
    for images, labels in NAMES:
        if {images.format(part), labels.format(part)} <= set(arrays):
            return images.format(part), labels.format(part)
    wanted = " or ".join(" and ".join(name.format(part) for name in pair) for pair in NAMES)
    raise UserError(f"{path} has no {wanted}; it has {', '.join(arrays) or 'nothing'}")


def _images(values: np.ndarray, name: str) -> Tensor:
    """uint8 (N, C, H, W)."""
    if values.dtype != np.uint8:
        raise UserError(f"{name} is {values.dtype}; images must be uint8, 0 to 255")
    if values.ndim == 3:
        values = values[:, None]
    elif values.ndim == 4 and values.shape[1] not in (1, 3) and values.shape[3] in (1, 3):
        values = values.transpose(0, 3, 1, 2)
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise UserError(f"{name} is of shape {values.shape}; (N, H, W), (N, C, H, W) or (N, H, W, C) would be right")
    return torch.from_numpy(np.ascontiguousarray(values))


def _labels(values: np.ndarray, name: str) -> Tensor:
    """uint8 (N,)."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise UserError(f"{name} is {values.dtype} of shape {values.shape}; labels must be whole numbers, (N,)")
    if len(values) and not (values.min() >= 0 and values.max() <= 255):
        raise UserError(f"{name} has labels from {values.min()} to {values.max()}; 0 to 255 are supported")
    return torch.from_numpy(values.astype(np.uint8))
