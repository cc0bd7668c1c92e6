import lightning.pytorch as pl
import pytest
import torch
import torchvision.datasets
import yaml
from omegaconf import OmegaConf

from src.data import ImageDataModule
from src.data.batches import ImageTensors
from src.data.files import ROLES
from src.data.folder import FolderSource
from src.data.idx import write_idx
from src.data.sources import IdxSource
from src.errors import UserError


@pytest.fixture(scope="module")
def mnist(from_config, mnist_root):
    data = from_config("mnist", root=str(mnist_root))
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture
def tiny_data(tiny, tmp_path):
    """Makes data modules of the tiny set."""
    root = tiny.write(tmp_path / "tiny")

    def make(**changes):
        return ImageDataModule(**{"name": "tiny", "root": root, "batch_size": 16, "val_size": 10} | changes)

    return make


def everything(loader):
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def rows(images):
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize(("train", "part"), [(True, "train"), (False, "test")])
def test_torchvision_reads_the_same_set_from_the_same_root(mnist, mnist_root, train, part):
    theirs = torchvision.datasets.MNIST(str(mnist_root), train=train, download=False)
    if part == "test":
        images, labels = mnist.test_set()
        assert images.equal(theirs.data.unsqueeze(1).float() / 255)
        assert labels.equal(theirs.targets)
    else:
        labels = torch.cat([everything(mnist.train_dataloader())[1], everything(mnist.val_dataloader())[1]])
        assert labels.bincount().equal(theirs.targets.bincount())
        assert len(theirs) == len(labels) == 60_000


def test_images_are_what_torchvisions_to_tensor_makes_of_them(mnist, mnist_root):
    to_tensor = torchvision.transforms.ToTensor()
    theirs = torchvision.datasets.MNIST(str(mnist_root), train=False, transform=to_tensor)
    images, labels = mnist.test_set(limit=20)
    for i in range(20):
        assert images[i].equal(theirs[i][0])
        assert labels[i] == theirs[i][1]


def test_the_validation_images_are_held_out_as_the_test_images_are(mnist):
    images, labels = mnist.held_out("val", 300)
    expected = everything(mnist.val_dataloader())
    assert images.equal(expected[0][:300]) and labels.equal(expected[1][:300])
    assert len(mnist.held_out("val")[1]) == 10_000
    assert mnist.held_out("test", 5)[0].equal(mnist.test_set(5)[0])
    with pytest.raises(UserError, match=r"limit=10001 .* 10000, the number of mnist's validation images"):
        mnist.held_out("val", 10_001)
    with pytest.raises(UserError, match="split=fit is not one of test, val"):
        mnist.held_out("fit")


def test_batches_are_tensors_in_pixel_units(mnist):
    for loader, size in ((mnist.train_dataloader(), 50_000), (mnist.val_dataloader(), 10_000)):
        batches = list(loader)
        assert [len(labels) for _, labels in batches[:-1]] == [128] * (size // 128)
        assert len(batches) == len(loader)
        for images, labels in batches:
            assert images.dtype == torch.float32
            assert images.shape == (len(labels), 1, 28, 28)
            assert labels.dtype == torch.int64
        images, labels = everything(batches)
        assert (images.min(), images.max()) == (0, 1)
        assert len(images) == size
        assert labels.unique().tolist() == list(range(10))


def test_the_split_never_changes(mnist):
    """With another split than this one, old checkpoints would have been trained on validation images."""
    _, labels = everything(mnist.val_dataloader())
    assert labels[:20].tolist() == [8, 6, 1, 2, 3, 6, 1, 2, 4, 7, 8, 1, 6, 9, 3, 2, 4, 5, 3, 3]
    assert int((labels * torch.arange(len(labels))).sum()) == 224_142_378


def test_the_split_is_disjoint_and_complete(tiny, tiny_data):
    for split_seed in range(5):
        data = tiny_data(split_seed=split_seed)
        train, _ = everything(data.train_dataloader())
        val, _ = everything(data.val_dataloader())
        assert (len(train), len(val)) == (50, 10)
        assert not rows(train) & rows(val)
        assert rows(train) | rows(val) == rows(tiny.tensors["train_images"].unsqueeze(1).float() / 255)


def test_the_split_depends_on_its_seed_alone(tiny_data):
    def val(**changes):
        return everything(tiny_data(**changes).val_dataloader())[0]

    assert val().equal(val(seed=5, batch_size=3))
    assert not val().equal(val(split_seed=1))


def test_every_image_keeps_its_label(tiny, tiny_data):
    images = tiny.tensors["train_images"].unsqueeze(1).float() / 255
    label_of = dict(zip((i.numpy().tobytes() for i in images), tiny.tensors["train_labels"].tolist(), strict=True))
    for loader in (tiny_data().train_dataloader(), tiny_data().val_dataloader()):
        for image, label in zip(*everything(loader), strict=True):
            assert label_of[image.numpy().tobytes()] == label


def epoch(data, number):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return everything(loader)[0]


def test_the_order_of_an_epoch_is_a_function_of_seed_and_epoch(tiny_data):
    data = tiny_data()
    first = [epoch(data, number) for number in range(3)]
    torch.manual_seed(99)
    assert epoch(tiny_data(), 2).equal(first[2])
    assert epoch(data, 0).equal(first[0])
    assert not first[0].equal(first[1])
    assert not epoch(tiny_data(seed=1), 0).equal(first[0])
    assert rows(first[0]) == rows(first[1]) == rows(first[2])
    assert len(rows(first[0])) == 50


def test_loading_leaves_the_global_random_state_alone(tiny_data):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    data = tiny_data()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        everything(loader)
    assert torch.rand(4).equal(expected)


class Recorder(pl.LightningModule):
    """Learns nothing and remembers the batches of each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {}

    def validation_step(self, batch, index):
        pass

    def training_step(self, batch, index):
        self.seen.setdefault(self.current_epoch, []).append(batch[0].clone())
        return self.weight * batch[0].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, epochs, folder, resume_from=None):
    module = Recorder()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, data, ckpt_path=resume_from)
    trainer.save_checkpoint(folder / f"{epochs}.ckpt")
    return {number: torch.cat(batches) for number, batches in module.seen.items()}


def test_lightning_shuffles_each_epoch_and_a_resumed_run_sees_the_same_batches(tiny_data, tmp_path):
    whole = fit(tiny_data(), 3, tmp_path)
    assert all(whole[number].equal(epoch(tiny_data(), number)) for number in range(3))
    fit(tiny_data(), 2, tmp_path)
    rest = fit(tiny_data(), 3, tmp_path, resume_from=tmp_path / "2.ckpt")
    assert list(rest) == [2]
    assert rest[2].equal(whole[2])


def test_the_test_set_is_whole_and_in_canonical_order(tiny, tiny_data):
    data = tiny_data()
    expected = tiny.tensors["test_images"].unsqueeze(1).float() / 255, tiny.tensors["test_labels"].long()
    for found in (data.test_set(), data.test_set(20), everything(data.test_dataloader())):
        assert all(map(torch.equal, found, expected))
    images, labels = data.test_set(limit=7)
    assert images.equal(expected[0][:7])
    assert labels.equal(expected[1][:7])


def test_a_caller_may_change_the_test_set_it_was_given(tiny_data):
    data = tiny_data()
    images, labels = data.test_set()
    images.zero_(), labels.zero_()
    assert data.test_set()[0].any()
    assert data.test_set()[1].any()


def labelled(folder, labels):
    """IDX files of training and test images with these labels."""
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte", torch.full((len(labels), 4, 4), 255, dtype=torch.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels.byte())
    return folder


@pytest.mark.parametrize("source", [None, "folder"])
@pytest.mark.parametrize(("split", "called"), [("test", "test"), ("val", "validation")])
def test_a_limit_that_takes_few_of_the_classes_of_sorted_images_is_refused(tiny_data, tmp_path, source, split, called):
    """It would judge one class alone."""
    root = labelled(tmp_path / "sorted", torch.arange(2000) // 200)
    finder = source and FolderSource(cache=tmp_path / "cache")
    data = tiny_data(root=root, source=finder, image_shape=(1, 4, 4), val_size=1000)
    for limit, found in ((20, 1), (90, 1), (850, 9 if split == "val" else 5)):
        with pytest.raises(UserError) as refused:
            data.held_out(split, limit)
        said = str(refused.value)
        assert f"limit={limit} takes images of {found} of 10 classes: tiny's {called} images are sorted" in said
        assert "shuffle them" in said and "leave limit out" in said and "\n" not in said
    size = len(data.held_out(split)[1])
    assert len(data.held_out(split, size)[1]) == size


@pytest.mark.parametrize("limit", [1, 5, 19])
def test_sorted_images_allow_no_limit_however_small(tiny_data, tmp_path, limit):
    """Five images of one class of ten may be chance, but for the order of all others."""
    data = tiny_data(root=labelled(tmp_path / "sorted", torch.arange(40) // 20), image_shape=(1, 4, 4), val_size=10)
    with pytest.raises(UserError, match=f"limit={limit} takes images of 1 of 2 classes"):
        data.test_set(limit)


def test_a_limit_may_take_what_a_random_order_can_begin_with(tiny_data, tmp_path):
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    rare = torch.cat([torch.arange(1990) % 5, torch.full((10,), 5)])
    for name, labels in (("mixed", torch.arange(2000)[order] % 100), ("rare", rare)):
        data = tiny_data(root=labelled(tmp_path / name, labels), num_classes=100, image_shape=(1, 4, 4))
        assert all(len(data.test_set(limit)[1]) == limit for limit in range(1, 1900, 7))


def test_images_of_zero_to_one_that_were_cast_are_refused(tiny_data, tmp_path):
    root = labelled(tmp_path / "cast", torch.arange(40) % 10)
    write_idx(root / "t10k-images-idx3-ubyte", torch.ones(40, 4, 4, dtype=torch.uint8))
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte: images never exceed 1 of 255"):
        tiny_data(root=root, image_shape=(1, 4, 4)).test_set()


def test_a_published_set_that_is_sorted_is_judged_whole(tiny, tiny_data, tmp_path):
    root = labelled(tmp_path / "published", torch.arange(2000) // 200)
    data = tiny_data(root=root, source=IdxSource(of="tiny"), image_shape=(1, 4, 4))
    with pytest.raises(UserError, match=r"sorted by class in .*; leave limit out$"):
        data.test_set(100)
    assert data.test_set()[1].tolist() == (torch.arange(2000) // 200).tolist()


def test_the_first_images_of_mnist_are_of_all_classes(mnist):
    assert len(mnist.test_set(1000)[1].unique()) == 10


@pytest.mark.parametrize("limit", [0, -1, 21])
def test_a_limit_out_of_range_is_refused_with_the_range(tiny_data, limit):
    with pytest.raises(UserError, match=f"limit={limit}.*1 to 20"):
        tiny_data().test_set(limit)


def test_the_fingerprint_stands_for_name_and_content(tiny, tiny_data, tmp_path):
    fingerprint = tiny_data().fingerprint
    assert len(bytes.fromhex(fingerprint)) == 32
    zipped = tiny.write(tmp_path / "elsewhere", ".gz")
    assert tiny_data(root=zipped, source=tiny.source(), seed=4, val_size=3).fingerprint == fingerprint
    assert tiny_data(name="other").fingerprint != fingerprint
    write_idx(tmp_path / "tiny" / "t10k-labels-idx1-ubyte", tiny.tensors["test_labels"].flip(0))
    assert tiny_data().fingerprint != fingerprint


def test_the_fingerprint_needs_no_images(tiny, tiny_data, tmp_path):
    data = tiny_data()
    data.prepare_data()
    for role in ROLES:
        (tmp_path / "tiny" / tiny.files[role].name).unlink()
    assert len(data.fingerprint) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 0},
        {"val_size": 0},
        {"val_size": 60},
        {"num_classes": 9},
        {"num_classes": 0},
        {"image_shape": (28, 28)},
        {"image_shape": (3, 28, 28)},
        {"image_shape": (1, 28, 0)},
        {"seed": -1},
        {"split_seed": 2**32},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_named(tiny_data, changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        tiny_data(**changes).setup()


def test_images_and_labels_must_go_together(tiny, tiny_data, tmp_path):
    write_idx(tmp_path / "tiny" / "train-labels-idx1-ubyte", tiny.tensors["train_labels"][:-1])
    with pytest.raises(UserError, match="60 train images"):
        tiny_data().setup("fit")


def test_colour_images(tmp_path, tiny_data):
    root = tmp_path / "colour"
    for part in ("train", "t10k"):
        write_idx(root / f"{part}-images-idx3-ubyte", torch.randint(0, 256, (20, 3, 8, 6), dtype=torch.uint8))
        write_idx(root / f"{part}-labels-idx1-ubyte", torch.arange(20, dtype=torch.uint8) % 10)
    data = tiny_data(root=root, image_shape=[3, 8, 6])
    assert next(iter(data.train_dataloader()))[0].shape == (10, 3, 8, 6)


def test_configs_agree_with_torchvision_on_names_and_layout(from_config, tmp_path):
    for name, theirs, unhashed in (
        ("mnist", torchvision.datasets.MNIST, set()),
        ("fashion_mnist", torchvision.datasets.FashionMNIST, set()),
        ("kmnist", torchvision.datasets.KMNIST, {"train_images"}),
    ):
        data = from_config(name, root=str(tmp_path / name), seed=3)
        assert data.name == name
        assert data.seed == 3
        source = data._source
        ours = [f"{getattr(source, role).name}.gz" for role in ROLES]
        assert ours == [file for file, _ in theirs.resources]
        assert source.folder == f"{theirs.__name__}/raw"
        hashed = {role for role in ROLES if getattr(source, role).md5 and getattr(source, role).sha256}
        assert hashed == set(ROLES) - unhashed


def test_a_new_data_set_needs_only_a_config(tiny, tmp_path):
    from hydra.utils import instantiate

    root = tiny.write(tmp_path / "digits")
    text = f"{{_target_: src.data.ImageDataModule, name: digits, root: '{root}', val_size: 5}}"
    data = instantiate(OmegaConf.create(yaml.safe_load(text)), _convert_="all")
    data.prepare_data()
    assert len(everything(data.train_dataloader())[0]) == 55
    assert not hasattr(data, "hparams") or not data.hparams


def test_a_batch_is_made_where_the_images_lie():
    dataset = ImageTensors(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4)).to(torch.device("meta"))
    images, labels = dataset[torch.tensor([0, 2])]
    assert images.device.type == labels.device.type == "meta"
    assert images.shape == (2, 1, 2, 2)


def test_a_name_that_contradicts_the_files_is_refused(from_config, tmp_path):
    """They would be fetched, and published under that name."""
    source = from_config("mnist")._source
    with pytest.raises(UserError, match=r"kmnist contradicts .* mnist's: .* data=folder data\.name=kmnist data\.root="):
        ImageDataModule("kmnist", tmp_path, source)
    assert not list(tmp_path.iterdir())
    ImageDataModule("kmnist", tmp_path), ImageDataModule("mnist", tmp_path, source)  # these go together


def test_sizes_left_open_are_found_in_the_files(tiny_data):
    data = tiny_data(image_shape=None, num_classes=None, val_size=0.25)
    assert (data.image_shape, data.num_classes, data.val_size) == ((1, 28, 28), 10, 15)
    assert str(data) == "45 training, 15 validation and 20 test images, 1 × 28 × 28, 10 classes, 0.1 MB in memory"
    assert len(everything(data.train_dataloader())[0]) == 45
    assert data.held_out("val")[0].equal(tiny_data(val_size=15).held_out("val")[0])
    assert data.fingerprint == tiny_data().fingerprint
