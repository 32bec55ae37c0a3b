"""Estimated against timed seconds of training steps and evaluations, for networks of every family.

    python -m benchmarks.planning [--calibrate] [--markdown]

Times are CPU seconds of one thread. With `--calibrate`, the machine is calibrated anew for this run alone.
"""

import argparse
import statistics

import torch

from leadline import networks
from leadline.specs import SGD, Adam, TrainingSpec, TrialSpec
from leadline.study.planning.calibration import calibrate, predict, time_network
from leadline.study.planning.speeds import Speeds
from leadline.study.planning.timing import Work, limit_threads

DIGITS, MNIST, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
CASES = (
    ("comparative-plain, 2 blocks", networks.comparative_plain(2), DIGITS, 64),
    ("comparative-resnet, 5 blocks", networks.comparative_resnet(5), DIGITS, 64),
    ("comparative-resnet, 10 blocks", networks.comparative_resnet(10), DIGITS, 64),
    ("comparative-plain, 5 blocks", networks.comparative_plain(5), MNIST, 50),
    ("mnist-cnn", networks.mnist_cnn(), MNIST, 128),
    ("cifar-resnet 20", networks.cifar_resnet(20), CIFAR, 32),
    ("cifar-resnet 56", networks.cifar_resnet(56), CIFAR, 16),
    ("cifar-plain 20", networks.cifar_plain(20), DIGITS, 128),
    ("mlp, 4 layers of 256", networks.mlp(), MNIST, 128),
    ("mlp, 8 sigmoid layers of 64", networks.mlp(8, 64, "sigmoid"), DIGITS, 32),
    ("recnet", networks.recnet(), MNIST, 32),
    ("recurrent-resnet, 8 steps", networks.recurrent_resnet(), DIGITS, 64),
    ("densenet 22", networks.densenet(22), CIFAR, 16),
    ("wide-resnet 10-2", networks.wide_resnet(10, 2), CIFAR, 32),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrate", action="store_true", help="calibrate the machine anew, for this run alone")
    parser.add_argument("--markdown", action="store_true", help="print the rows of a Markdown table")
    given = parser.parse_args()
    device = torch.device("cpu")
    units = calibrate(device, 1) if given.calibrate else Speeds(device, 1, 1).calibrated(print).units
    row = "| {} | {} | {} | {} | {} |" if given.markdown else "{:32} {:>10} {:>10} {:>8} {:>12}"
    print(row.format("network", "batch", "ms a step", "ratio", "evaluation"))
    ratios = []
    with limit_threads(1):
        for name, network, shape, batch in CASES:
            optimizer = Adam(learning_rate=1e-9) if "cifar" not in name else SGD(learning_rate=1e-9)
            trial = TrialSpec(network=network, training=TrainingSpec(epochs=1, batch_size=batch, optimizer=optimizer))
            step, evaluation = time_network(Work(trial, shape, 10), device)
            both = [predict(units, sample.amounts) / sample.seconds for sample in (step, evaluation)]
            ratios.append(both[0])
            images = f"{batch} of {'x'.join(map(str, shape))}"
            print(row.format(name, images, f"{1e3 * step.seconds:.1f}", *(f"{one:.2f}" for one in both)), flush=True)
    within = sum(2 / 3 <= one <= 1.5 for one in ratios)
    print(
        f"steps, estimated / timed: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f},"
        f" {within} of {len(ratios)} within a factor of 1.5"
    )


if __name__ == "__main__":
    main()
