"""Pictures in class folders: found, checked and decoded into tensors."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from src.data.labelled import Labelled, LabelledSet, check_range, notes_on, shown_size
from src.data.picture_files import ENDINGS, contents, is_picture
from src.data.progress import progress_bar
from src.errors import UserError
from src.single_image import GREY, opaque

#: The formats that Pillow may take pictures for.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

#: What folders of a part are called, in capitals or not; validation images are taken out of the training ones.
TRAIN, TEST, VALIDATION = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")

#: Pillow's modes with more than 8 bits a value.
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")

#: Files that threads decode before the next ones are begun: bounds memory.
CHUNK = 256

Files = Mapping[str, Sequence[Path]]  #: class name -> its pictures, in order


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder."""

    train: Files
    test: Files | None  #: None: there is no ``test`` folder
    aside: tuple[str, ...]  #: what else lies there, in words


def list_pictures(root: Path) -> Listing:
    """Find ``train/<class>/*`` and ``test/<class>/*`` below ``root``, or ``<class>/*`` where there is no ``train``.

    The two may be called ``Training`` and ``Testing`` as well, in capitals or not. Pictures may lie deeper within a
    class's folder. Hidden files are passed over.

    Raises:
        UserError: a folder is called as a part is and looks like one, and there are not both parts.
    """
    train, test = _part(root, TRAIN), _part(root, TEST)
    if train is None or (test is None and train.name != "train"):
        _refuse_parts(root)
        return Listing(_classes(root), None, _aside(root, set()))
    classes = _classes(test) if test else None
    return Listing(_classes(train), classes, _aside(root, {part.name for part in (train, test) if part}))


def _part(root: Path, names: Sequence[str]) -> Path | None:
    """The folder of a part: of the plain name, or the only one of such a name that holds folders."""
    if (plain := root / names[0]).is_dir() and plain in _visible(root):  # a file system may not tell Train from train
        return plain
    named = [path for path in _visible(root) if path.name.lower() in names and _folders(path)]
    return named[0] if len(named) == 1 else None


def _refuse_parts(root: Path) -> None:
    """UserError if a part would be taken for a class: what is called so holds folders, or there is nothing else."""
    folders = _folders(root)
    named = [path for path in folders if path.name.lower() in TRAIN + TEST + VALIDATION]
    for path in named:
        if named == folders or (_folders(path) and not any(map(is_picture, path.iterdir()))):
            raise UserError(
                f"{path} would be taken for a class; for images of two parts name one folder {' or '.join(TRAIN)} and "
                f"one {' or '.join(TEST)}, and put a folder for each class into both"
            )


def _folders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()] if folder.is_dir() else []


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _classes(folder: Path) -> dict[str, list[Path]]:
    return {path.name: contents(path).pictures for path in _folders(folder)}


def _aside(root: Path, used: set[str]) -> tuple[str, ...]:
    """What in ``root`` is not looked into: other folders beside train and test, and pictures that have no class."""
    folders = [f"{path.name}/" for path in _visible(root) if used and path.is_dir() and path.name not in used]
    loose = [path.name for path in _visible(root) if is_picture(path) and path.is_file()]
    pictures = [f"{len(loose)} pictures in no class folder, such as {loose[0]}"] if loose else []
    return (*folders, *pictures)


@dataclass(frozen=True)
class Decoding:
    """What is made of the pictures.

    Attributes:
        size: (H, W) that each picture is scaled to, proportions kept and the rest cut off on both sides; None: pictures
            have to be of one size.
        channels: 1 or 3; None: pictures have to be all grey or all in colour.
        skip: leave out files that cannot be used; else they are an error.
        test_share: share of each class that becomes test images where there is no ``test`` folder.
        test_seed: decides which ones.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    skip: bool = False
    test_share: float = 0.2
    test_seed: int = 0

    def __call__(self, root: Path) -> LabelledSet:
        """Decode all pictures below ``root``.

        Raises:
            UserError: they do not make a data set. Names everything that is wrong with them, and what would help.
        """
        listing = list_pictures(root)
        classes = sorted(listing.train)
        _check_classes(root, listing)
        files = [(path, label) for label, name in enumerate(classes) for path in listing.train[name]]
        count = len(files)
        files += [(path, classes.index(name)) for name in sorted(listing.test or ()) for path in listing.test[name]]  # type: ignore[index]
        pictures = self._decode([path for path, _ in files], root)
        labels = torch.tensor([label for _, label in files], dtype=torch.uint8)
        usable = torch.tensor([i for i in range(len(files)) if i not in pictures.unusable], dtype=torch.int64)
        images, labels, split = pictures.images[usable], labels[usable], int((usable < count).sum())
        notes = [f"left aside: {', '.join(listing.aside)}"] if listing.aside else []
        if pictures.unusable:
            notes.append(f"left out as unusable: {pictures.named(root)}")
        if listing.test is None:
            is_test = self._chosen(labels, classes)
            notes.append(f"there is no test folder: {int(is_test.sum())} images, drawn by a seed, are the test images")
            parts = Labelled(images[~is_test], labels[~is_test]), Labelled(images[is_test], labels[is_test])
        else:
            parts = Labelled(images[:split], labels[:split]), Labelled(images[split:], labels[split:])
        check_range(parts[0].images, str(root))
        notes += notes_on(*parts)
        return LabelledSet(_mixed(parts[0]), _mixed(parts[1]), tuple(classes), tuple(notes))

    def _chosen(self, labels: Tensor, classes: Sequence[str]) -> Tensor:
        """Which images are to be test images: a share of each class, at least one."""
        is_test, generator = torch.zeros(len(labels), dtype=torch.bool), np.random.RandomState(self.test_seed)
        for label, name in enumerate(classes):
            (indices,) = torch.where(labels == label)
            if len(indices) < 2:
                raise UserError(f"class {name} has {len(indices)} usable pictures; at least 2 are needed, one to test")
            number = min(max(1, round(self.test_share * len(indices))), len(indices) - 1)
            is_test[indices[torch.from_numpy(generator.permutation(len(indices))[:number])]] = True
        return is_test

    def _decode(self, paths: Sequence[Path], root: Path) -> "_Pictures":
        pictures = _Pictures(paths)
        with progress_bar("decoding pictures", len(paths), unit="pictures") as advance, ThreadPoolExecutor() as pool:
            for first in range(0, len(paths), CHUNK):
                for index, picture in enumerate(pool.map(self._picture, paths[first : first + CHUNK]), first):
                    pictures.add(index, picture)
                    advance(1)
        pictures.check(root, self)
        return pictures

    def _picture(self, path: Path) -> "_Picture | str":
        """One picture, or why it cannot be used."""
        try:
            with Image.open(path, formats=FORMATS) as file:
                if file.mode in DEEP:
                    return "more than 8 bits a value"
                grey, image = file.mode in GREY, opaque(ImageOps.exif_transpose(file))
                if image is None:
                    return "transparent in places"
                size = (image.height, image.width)
                channels = self.channels or (1 if grey else 3)
                pixels = image.convert("L" if channels == 1 else "RGB")
                if self.size is not None:
                    pixels = ImageOps.fit(pixels, self.size[::-1])
                values = np.asarray(pixels)
        # Pillow's decoders raise many things; whatever it is, this file is no use.
        except Exception as error:
            if isinstance(error, UnidentifiedImageError):
                return "not a picture"
            reason = str(error).replace(repr(str(path)), "it").replace(str(path), "it")
            return " ".join(reason.split()) or type(error).__name__
        return _Picture(values.reshape(*values.shape[:2], -1).transpose(2, 0, 1), size, grey)


def _mixed(part: Labelled) -> Labelled:
    """The images in an order that mixes the classes, the same each time: the first N, which is what ``limit=N`` takes,
    would be of one class otherwise."""
    # RandomState, because NumPy has frozen its streams: the same order with every version, for ever.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(part.labels)))
    return Labelled(part.images[order], part.labels[order])


@dataclass(frozen=True)
class _Picture:
    values: np.ndarray  #: (C, H, W), uint8
    size: tuple[int, int]  #: (H, W) of the file
    grey: bool


@dataclass
class _Pictures:
    """Pictures as they come, all of one shape; what does not fit is counted."""

    paths: Sequence[Path]
    images: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    unusable: dict[int, str] = field(default_factory=dict)  #: index -> reason
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    greys: Counter[bool] = field(default_factory=Counter)
    example: dict[bool, Path] = field(default_factory=dict)  #: a grey one, and one in colour

    def add(self, index: int, picture: _Picture | str) -> None:
        if isinstance(picture, str):
            self.unusable[index] = picture
            return
        if not self.sizes:
            self.images = _room((len(self.paths), *picture.values.shape))
        self.sizes[picture.size] += 1
        self.greys[picture.grey] += 1
        self.example.setdefault(picture.grey, self.paths[index])
        if picture.values.shape == self.images.shape[1:]:
            self.images[index] = torch.from_numpy(picture.values.copy())

    def named(self, root: Path) -> str:
        """The first unusable files, with the reasons."""
        first = [f"{self.paths[i].relative_to(root)} ({reason})" for i, reason in islice(self.unusable.items(), 3)]
        return ", ".join(first) + (", …" if len(self.unusable) > 3 else "")

    def check(self, root: Path, decoding: Decoding) -> None:
        faults, remedies = [], []
        if self.unusable and not decoding.skip:
            number = f"{len(self.unusable)} files" if len(self.unusable) > 1 else "1 file"
            faults.append(f"{number} cannot be used: {self.named(root)}")
            remedies.append("data.source.skip=true leaves them out")
        if len(self.sizes) > 1 and decoding.size is None:
            low, high = min(self.sizes), max(self.sizes)
            faults.append(f"pictures are of {len(self.sizes)} sizes, from {shown_size(low)} to {shown_size(high)}")
            remedies.append("data.source.size=32 (or another) scales them to 32 × 32 and cuts off what is not square")
        if len(self.greys) > 1 and decoding.channels is None:
            grey = f"{self.greys[True]} pictures are grey ({self.example[True].relative_to(root)})"
            faults.append(f"{grey} among {self.greys[False]} in colour")
            remedies.append("data.source.channels=3 makes all coloured, 1 makes all grey")
        if faults:
            raise UserError(f"{root}: {'; '.join(faults)}. {'; '.join(remedies)}")
        if not self.sizes:
            raise UserError(f"{root}: none of its {len(self.paths)} pictures can be used: {self.named(root)}")


def _room(shape: tuple[int, ...]) -> Tensor:
    """Memory for so many images.

    Raises:
        UserError: this machine has not so much.
    """
    need = int(np.prod(shape, dtype=np.int64))
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        memory = need
    if need > memory:
        raise UserError(
            f"{shape[0]:,} pictures of {shown_size(shape[2:])} need {need / 1e9:.1f} GB of memory, and this machine "
            f"has {memory / 1e9:.1f}: data.source.size=… makes them smaller"
        )
    return torch.empty(shape, dtype=torch.uint8)


def _check_classes(root: Path, listing: Listing) -> None:
    """UserError unless there are at least two classes, each with pictures, and those of the test are among them."""
    if not any(listing.train.values()):
        raise UserError(
            f"{root} holds no pictures ({', '.join(sorted(ENDINGS))}) in class folders: put them into train/<class>/ "
            "and test/<class>/, or into <class>/ alone"
        )
    for part, classes in (("train", listing.train), ("test", listing.test or {})):
        if empty := [name for name, files in classes.items() if not files]:
            raise UserError(f"{root}: no pictures in the class folders {', '.join(empty[:5])} ({part}): remove them")
    if len(listing.train) < 2:
        raise UserError(f"{root} has a single class ({next(iter(listing.train))}); at least 2 are needed")
    if len(listing.train) > 256:
        raise UserError(f"{root} has {len(listing.train)} classes; at most 256 are supported")
    if listing.test is not None and not listing.test:
        raise UserError(f"{root}/test holds no class folders: fill it, or remove it, and test images are drawn")
    if unknown := sorted(set(listing.test or ()) - set(listing.train)):
        raise UserError(f"{root}: the test images have classes that the training images lack: {', '.join(unknown[:5])}")
