"""ResNet-18 for images of 32 × 32 pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Channels and first stride of the four stages.
STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))


class BasicBlock(nn.Module):
    """ReLU(shortcut(x) + BN(conv3×3(ReLU(BN(conv3×3(x)))))); the shortcut is a 1×1 convolution with BN where the shape
    changes, the identity elsewhere (option B of the paper)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut.extend([projection, nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class ResNet18(nn.Module):
    """x (N, C, H, W) in [0, 1] → logits (N, K): He et al. 2016, arXiv:1512.03385, the 18-layer column of its table 1.

    For small images the first layer is a 3×3 convolution of stride 1, and there is no max-pooling after it. 11.2
    million parameters for ten classes. No normalization of pixels.

    Args:
        num_classes: K.
        in_channels: C.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width = 64
        for number, (channels, stride) in enumerate(STAGES, start=1):
            blocks = BasicBlock(width, channels, stride), BasicBlock(channels, channels, 1)
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            width = channels
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear(torch.mean(x, (2, 3)))
