"""Anybody's images: class folders and .npz files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from src.data import ImageDataModule
from src.data.class_folders import list_pictures
from src.data.folder import FolderSource
from src.data.idx import write_idx
from src.errors import UserError

CLASSES = ("cat", "dog")


def draw(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value, 0, 255 - value) if mode == "RGB" else value).save(path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of ten colour pictures each, all different."""
    root = tmp_path / "pictures"
    for label, name in enumerate(CLASSES):
        for i in range(10):
            draw(root / name / f"{i}.png", 100 * label + i)
    return root


def module(root: Path, tmp_path: Path, **changes: object) -> ImageDataModule:
    source = FolderSource(cache=tmp_path / "cache", **changes)
    return ImageDataModule("mine", root, source, num_classes=None, image_shape=None, val_size=2)


def test_size_channels_and_classes_are_found_by_looking(pictures, tmp_path):
    data = module(pictures, tmp_path)
    data.setup()
    images, labels = data.held_out("test")
    assert data.image_shape == (3, 8, 8) and data.num_classes == 2
    assert len(labels) == 4  # a fifth of each class
    for image, label in zip(images, labels, strict=True):
        red = int(image[0, 0, 0] * 255 + 0.5)
        assert red // 100 == label and image[2, 0, 0] == torch.tensor((255 - red) / 255)


def test_nothing_is_written_into_the_users_folder_and_the_same_files_are_the_same_data(pictures, tmp_path):
    before = sorted(path.relative_to(pictures) for path in pictures.rglob("*"))
    first, again = (module(pictures, tmp_path) for _ in range(2))
    first.prepare_data()
    again.prepare_data()
    assert first.fingerprint == again.fingerprint
    assert sorted(path.relative_to(pictures) for path in pictures.rglob("*")) == before
    draw(pictures / "cat" / "3.png", 77)
    changed = module(pictures, tmp_path)
    changed.prepare_data()
    assert changed.fingerprint != first.fingerprint


def test_a_link_to_a_folder_that_it_lies_in_adds_no_copies(pictures, tmp_path):
    (pictures / "cat" / "up").symlink_to(pictures / "cat")
    (pictures / "dog" / "out").symlink_to(pictures)
    assert {name: len(files) for name, files in list_pictures(pictures).train.items()} == {"cat": 10, "dog": 20}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "cat" / "broken.png").write_text("no picture"), ["cat/broken.png", "skip=true"]),
        (lambda root: draw(root / "cat" / "large.png", 5, size=(16, 8)), ["size"]),
        (lambda root: draw(root / "dog" / "grey.png", 5, mode="L"), ["grey"]),
        (lambda root: (root / "empty").mkdir(), ["empty"]),
        (lambda root: (root / "cat" / "gone.png").symlink_to("nowhere"), ["cat/gone.png"]),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(pictures, tmp_path, spoil, said):
    spoil(pictures)
    with pytest.raises(UserError) as refused:
        module(pictures, tmp_path).prepare_data()
    message = str(refused.value)
    assert "\n" not in message and all(each in message for each in said), message


def test_a_broken_file_can_be_left_out(pictures, tmp_path):
    (pictures / "cat" / "broken.png").write_text("no picture")
    data = module(pictures, tmp_path, skip=True)
    data.setup()
    assert len(data.held_out("test")[1]) == 4


def parts(root: Path, *names: str) -> Path:
    """A folder with these parts, of two classes of 4 pictures each; all pictures differ."""
    for number, part in enumerate(names):
        for label, name in enumerate(CLASSES):
            for i in range(4):
                draw(root / part / name / f"{i}.png", 100 * label + 10 * number + i)
    return root


@pytest.mark.parametrize(
    "names", [("train", "test"), ("Training", "Testing"), ("TRAIN", "TEST"), ("train", "Testing"), ("training", "Test")]
)
def test_parts_may_be_called_as_kaggle_does(tmp_path, caplog, names):
    data = module(parts(tmp_path / "mine", *names, "val"), tmp_path)
    images, labels = data.held_out("test")
    assert sorted((images[:, 0, 0, 0] * 255).round().int().tolist()) == [10, 11, 12, 13, 110, 111, 112, 113]
    assert len(labels) == 8 and data.num_classes == 2
    assert "left aside: val/" in caplog.text


@pytest.mark.parametrize(
    "names", [("Training",), ("test",), ("Train", "training"), ("valid", "Testing"), ("Train", "VAL")]
)
@pytest.mark.parametrize("others", [(), ("cat", "dog")])
def test_a_part_is_not_taken_for_a_class(tmp_path, names, others):
    root = parts(tmp_path / "mine", *names)
    for name in others:
        draw(root / name / "1.png", 5)
    with pytest.raises(UserError, match=r"would be taken for a class; .* train or training and one test or testing"):
        module(root, tmp_path).prepare_data()


def test_nor_are_parts_without_classes(tmp_path):
    for part in ("Train", "Test"):
        draw(tmp_path / "mine" / part / "1.png", 5)
    with pytest.raises(UserError, match="would be taken for a class"):
        module(tmp_path / "mine", tmp_path).prepare_data()


def test_a_class_may_be_called_as_a_part_is(pictures, tmp_path):
    draw(pictures / "Train" / "1.png", 5)
    draw(pictures / "Train" / "2.png", 6)
    data = module(pictures, tmp_path)
    data.prepare_data()
    assert data.num_classes == 3


def write_npz(path: Path, train: np.ndarray, test: np.ndarray, classes: int = 3) -> Path:
    labels = {"y_train": np.arange(len(train)) % classes, "y_test": np.arange(len(test)) % classes}
    np.savez(path, x_train=train, x_test=test, **labels)
    return path


def noise(*shape: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)


def told(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> str:
    """The warnings of a first look at the images, which decodes them, and the same ones of a second look."""
    looks = []
    for _ in range(2):
        caplog.clear()
        module(root, tmp_path).prepare_data()
        looks.append([record.message for record in caplog.records if record.levelname == "WARNING"])
    assert looks[0] == looks[1]
    return "\n".join(looks[0])


@pytest.mark.parametrize(
    ("copies", "said"),
    [
        (37, "37 of 1,000 test images are copies of training images"),
        (1, "1 of 1,000 test images is a copy of a training image"),
        (0, None),
    ],
)
def test_test_images_that_are_training_images_are_counted_at_each_look(tmp_path, caplog, copies, said):
    images = noise(1200, 4, 4)
    test = images[200:].copy()
    test[500 : 500 + copies] = images[100 : 100 + copies]
    path = write_npz(tmp_path / "mine.npz", images[:200], test)
    assert told(path, tmp_path, caplog) == (f"{path}: {said}" if said else "")


def test_so_are_pictures_in_class_folders_whatever_their_files(tmp_path, caplog):
    root = parts(tmp_path / "mine", "train", "test")
    draw(root / "test" / "cat" / "copy.bmp", 3)  # as train/cat/3.png
    assert told(root, tmp_path, caplog) == f"{root}: 1 of 9 test images is a copy of a training image"


def test_classes_that_the_test_images_lack_are_told_of_at_each_look(tmp_path, caplog):
    images, root = noise(60, 4, 4), parts(tmp_path / "mine", "train", "test")
    labels = {"train_labels": np.arange(48) % 6, "test_labels": np.arange(12) % 3}
    np.savez(tmp_path / "mine.npz", train_images=images[:48], test_images=images[48:], **labels)
    said = f"{tmp_path}/mine.npz: the test images have 3 of 6 classes"
    assert told(tmp_path / "mine.npz", tmp_path, caplog) == said
    for i in range(4):
        (root / "test" / "dog" / f"{i}.png").unlink()
    (root / "test" / "dog").rmdir()
    assert told(root, tmp_path, caplog) == f"{root}: the test images have 1 of 2 classes"


def test_images_from_0_to_1_are_refused(tmp_path):
    """They would be divided by 255, and nearly all be black."""
    images = noise(60, 4, 4) // 128
    path = write_npz(tmp_path / "mine.npz", images[:40], images[40:])
    with pytest.raises(UserError) as refused:
        module(path, tmp_path).prepare_data()
    said = str(refused.value)
    assert said.startswith(f"{path}: x_train: images never exceed 1 of 255; multiply") and "\n" not in said
    for i in range(8):
        draw(tmp_path / "mine" / CLASSES[i % 2] / f"{i}.png", i % 2, mode="L")
    with pytest.raises(UserError, match="never exceed 1 of 255"):
        module(tmp_path / "mine", tmp_path).prepare_data()
    write_npz(path, images[:40] * 255, images[40:] * 255)
    module(path, tmp_path).prepare_data()  # black and white images are all right


@pytest.mark.parametrize("replaced", [True, False])
def test_another_file_of_the_same_size_and_time_is_another_file(tmp_path, replaced):
    """As ``rsync -t`` and ``cp -p`` write it: over the old one, or in its place."""
    images = noise(60, 4, 4)
    path, other = (write_npz(tmp_path / name, images[:40], images[40:]) for name in ("mine.npz", "other.npz"))
    first = module(path, tmp_path).fingerprint
    write_npz(other, 255 - images[:40], images[40:])
    before = path.stat()
    if replaced:
        other.replace(path)
    else:
        path.write_bytes(other.read_bytes())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert module(path, tmp_path).fingerprint != first


def test_an_npz_file(tmp_path):
    path = tmp_path / "mine.npz"
    images = np.arange(12 * 4 * 4 * 3, dtype=np.uint8).reshape(12, 4, 4, 3)
    np.savez(
        path, train_images=images, train_labels=np.arange(12) % 3, test_images=images[:3], test_labels=np.arange(3)
    )
    data = module(path, tmp_path)
    data.setup()
    shown, labels = data.held_out("test")
    assert data.image_shape == (3, 4, 4) and labels.tolist() == [0, 1, 2]
    assert torch.equal((shown * 255).round().byte(), torch.from_numpy(images[:3]).permute(0, 3, 1, 2))


def test_an_npz_file_keeps_its_order_so_that_a_limit_is_refused_where_it_is_sorted(tmp_path):
    path, labels = tmp_path / "mine.npz", np.arange(300) // 100
    images = np.random.RandomState(0).randint(0, 256, (600, 4, 4), dtype=np.uint8)
    np.savez(path, x_train=images[:300], y_train=labels, x_test=images[300:], y_test=labels)
    with pytest.raises(UserError, match=r"limit=100 takes images of 1 of 3 classes: mine's test images are sorted"):
        module(path, tmp_path).held_out("test", 100)
    assert len(module(path, tmp_path).held_out("test")[1]) == 300


def test_an_npz_file_is_never_unpickled(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, train_images=np.array([{}], dtype=object))
    with pytest.raises(UserError):
        module(path, tmp_path).prepare_data()


@pytest.mark.parametrize("split", ["test", "val"])
def test_the_first_images_are_of_all_classes_and_the_same_each_time(tmp_path, split):
    """Sorted by class, ``limit=10`` would judge one class alone."""
    for part, size in (("train", 40), ("test", 40)):
        for label, name in enumerate(CLASSES):
            for i in range(size):
                draw(tmp_path / "mine" / part / name / f"{i}.png", 100 * label + i)
    source = FolderSource(cache=tmp_path / "cache")
    data = ImageDataModule("mine", tmp_path / "mine", source, num_classes=None, image_shape=None, val_size=40)
    images, labels = data.held_out(split, 10)
    assert 2 <= int(labels.sum()) <= 8
    for image, label in zip(images, labels, strict=True):
        assert round(image[0, 0, 0].item() * 255) // 100 == label
    assert source.is_mixed(tmp_path / "mine")  # so that no limit is refused


@pytest.mark.parametrize("setting", [{"size": 4}, {"channels": 1}])
def test_what_is_said_of_pictures_is_not_passed_over_for_arrays(tmp_path, setting):
    path = write_npz(tmp_path / "mine.npz", *np.zeros((2, 6, 8, 8), np.uint8))
    with pytest.raises(UserError, match="are for pictures"):
        module(path, tmp_path, **setting).prepare_data()


def test_idx_images_with_colours_last_are_refused(tmp_path):
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", torch.full((6, 8, 8, 3), 200, dtype=torch.uint8))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", torch.zeros(6, dtype=torch.uint8))
    with pytest.raises(UserError, match="colours last"):
        module(tmp_path, tmp_path).setup()
