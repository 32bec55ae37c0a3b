"""Modules as people write them, which `test_drawing_modules` draws: importable by their names."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Basic(nn.Module):
    """The block of a ResNet, whose ReLU works in place and stands behind the addition."""

    def __init__(self, before: int, width: int, stride: int = 1, attend: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.attend = Squeeze(width) if attend else nn.Identity()
        self.down = None
        if stride > 1 or before != width:
            self.down = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.attend(self.bn2(self.conv2(y)))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


class Squeeze(nn.Module):
    """Channels weighed by what all of them are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))[:, :, None, None]


class ResNet(nn.Module):
    def __init__(self, num_classes: int = 10, blocks: int = 9) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Basic(16, 16) for _ in range(blocks)))
        self.layer2 = nn.Sequential(Basic(16, 32, 2), *(Basic(32, 32) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(Basic(32, 64, 2), *(Basic(64, 64) for _ in range(blocks - 1)))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn(self.conv(x))))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class DenseLayer(nn.Module):
    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(before), nn.Conv2d(before, growth, 3, 1, 1, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.conv(F.relu(self.norm(torch.cat(features, 1))))


class DenseNet(nn.Module):
    """Every layer takes all results before it."""

    def __init__(self, num_classes: int = 10, layers: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 1, 1)
        self.layers = nn.ModuleList(DenseLayer(16 + 12 * i, 12) for i in range(layers))
        self.fc = nn.Linear(16 + 12 * layers, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        return self.fc(torch.cat(features, 1).mean((2, 3)))


def double(before: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), nn.ReLU())


class UNet(nn.Module):
    def __init__(self, num_classes: int = 10, width: int = 8) -> None:
        super().__init__()
        self.enc1, self.enc2 = double(3, width), double(width, 2 * width)
        self.bottom = double(2 * width, 4 * width)
        self.up2, self.dec2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), double(4 * width, 2 * width)
        self.up1, self.dec1 = nn.ConvTranspose2d(2 * width, width, 2, 2), double(2 * width, width)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.enc1(x)
        b = self.enc2(F.max_pool2d(a, 2))
        x = self.dec2(torch.cat([self.up2(self.bottom(F.max_pool2d(b, 2))), b], 1))
        return self.head(self.dec1(torch.cat([self.up1(x), a], 1))).mean((2, 3))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(2, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln1, self.attention, self.ln2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class Transformer(nn.Module):
    def __init__(self, num_classes: int = 10, blocks: int = 6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.position = nn.Parameter(torch.zeros(1, 64, 32))
        self.blocks = nn.ModuleList(EncoderBlock(32) for _ in range(blocks))
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(1))


class Recurrent(nn.Module):
    """Rows as a sequence; what it does depends on the values that it computes."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(96, 24, num_layers=2, batch_first=True)
        self.fc = nn.Linear(24, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        states, (last, _) = self.lstm(x.transpose(1, 2).flatten(2))
        return self.fc(states[:, -1] if float(last.sum()) < 1e9 else last[-1])


class Inception(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.mixed = Mixed()
        self.fc = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mixed(x).mean((2, 3)))


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), double(3, 4), nn.Conv2d(3, 4, 5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x), self.c(x)], 1)


def squeezed(num_classes: int = 10) -> nn.Module:
    blocks = (Basic(3, 8, attend=True), *(Basic(8, 8, attend=True) for _ in range(3)))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))


def shared(num_classes: int = 10) -> nn.Module:
    """One block at four steps."""
    block = Basic(8, 8)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), *[block] * 4, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )


class Dropped(nn.Module):
    """Dropout in evaluation gives its input itself, which the skip takes too."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.drop, self.one, self.two = nn.Dropout(0.5), nn.Linear(3072, 3072), nn.Linear(3072, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x.flatten(1))
        return self.two(x + self.one(self.drop(x)))


class Untraceable(nn.Module):
    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.fc = nn.Linear(3072, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(2 * self.fc(x.flatten(1)).detach().numpy())


class Nest(nn.Module):
    """A U-Net in which each level holds the next one."""

    def __init__(self, width: int, inner: nn.Module | None = None) -> None:
        super().__init__()
        back = 2 * width if inner is None else 4 * width
        self.down, self.inner = nn.Conv2d(width, 2 * width, 2, 2), inner or nn.Identity()
        self.up = nn.ConvTranspose2d(back, width, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.up(self.inner(torch.relu(self.down(x))))], 1)


def nested(num_classes: int = 10) -> nn.Module:
    body = Nest(4, Nest(8, Nest(16)))
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )


class Cells(nn.Module):
    """Rows as a sequence, one call of a cell after the other."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.cell, self.fc = nn.GRUCell(96, 20), nn.Linear(20, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(2, 0, 1, 3).flatten(2)
        state = torch.zeros(rows.shape[1], 20, device=x.device)
        for row in rows:
            state = self.cell(row, state)
        return self.fc(state)
