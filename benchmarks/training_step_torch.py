"""The networks of training_step.py in PyTorch, a process started there. Needs nothing but PyTorch and NumPy."""

import argparse

import torch
from training_step import CLASSES, NETWORKS, answer, made_up

nn = torch.nn


def batch_norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)  # Keras' numbers


class Scaled(nn.Module):
    """The preprocessing."""

    def __init__(self, scale, offset):
        super().__init__()
        self.scale, self.offset = scale, offset

    def forward(self, x):
        return x * self.scale + self.offset


def custom_cnn(size):
    parts, channels = [Scaled(1 / 127.5, -1)], 3
    for filters in (32, 64, 128):
        for _ in range(2):
            parts += [nn.Conv2d(channels, filters, 3, padding=1), batch_norm(filters), nn.LeakyReLU(0.01)]
            channels = filters
        parts.append(nn.MaxPool2d(2))
    parts += [nn.Flatten(), nn.Linear(128 * (size // 8) ** 2, 128), nn.LeakyReLU(0.01), nn.Linear(128, CLASSES)]
    return nn.Sequential(*parts)


def conv_norm_relu(channels, filters, kernel_size=3, stride=1):
    conv = nn.Conv2d(channels, filters, kernel_size, stride, padding=1, bias=False)
    return nn.Sequential(conv, batch_norm(filters), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, filters):
        super().__init__()
        self.branch = nn.Sequential(conv_norm_relu(filters, filters), conv_norm_relu(filters, filters))

    def forward(self, x):
        return x + self.branch(x)


class MeanAndMaximum(nn.Module):
    def forward(self, x):
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


def land_cover_cnn(size):
    widths = (64, 64, 128, 256)
    parts = [Scaled(1 / 64, -1.6), conv_norm_relu(3, widths[0], kernel_size=4, stride=2)]
    for stage in (1, 2, 3):
        parts += [conv_norm_relu(widths[stage - 1], widths[stage]), nn.MaxPool2d(2)]
        if stage > 1:
            parts.append(Residual(widths[stage]))
    return nn.Sequential(*parts, MeanAndMaximum(), nn.Linear(2 * widths[-1], CLASSES))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=("eager", "compile"))
    parser.add_argument("precision", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("batch_size", type=int)
    arguments = parser.parse_args()
    size = NETWORKS[arguments.network]
    model = globals()[arguments.network](size).to(memory_format=torch.channels_last).train()
    images, labels = map(torch.from_numpy, made_up(arguments.batch_size, size))
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    optimizer, loss = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7), nn.CrossEntropyLoss()
    called = torch.compile(model) if arguments.variant == "compile" else model

    lower = arguments.precision != "float32"

    def train(steps):
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", getattr(torch, arguments.precision), enabled=lower):
                said = loss(called(images), labels)
            said.backward()
            optimizer.step()

    parameters = sum(p.numel() for p in model.parameters())
    how = {"precision": arguments.precision, "torch": torch.__version__, "threads": torch.get_num_threads()}
    answer(train, parameters, how)


if __name__ == "__main__":
    main()
