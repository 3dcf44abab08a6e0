"""A loop of one's own with steepest's safety around it: a network that takes noise out of handwritten digits.

Kill it and run it again: it goes on where it was, to the same bits.

    python examples/own_loop.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from steepest import rules, schedule
from steepest.torch import loop, optimizer

EPOCHS = 5


def pictures() -> torch.Tensor:
    """1,797 digits as rows of 64 numbers in 0…1."""
    return torch.tensor(load_digits().data / 16, dtype=torch.float32)


def main() -> None:
    """Train, and say how much of the noise is gone."""
    torch.manual_seed(0)
    clean = pictures()
    net = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.LayerNorm(96), nn.Linear(96, 64))
    opt = optimizer(net, rules.AdamW(lr=schedule.WarmUp(schedule.Constant(3e-3), warmup=20)))

    with loop(net, opt, (clean,), out="runs/denoise", epochs=EPOCHS, clip_norm=1.0) as steps:
        for (x,) in steps:
            noisy = x + 0.3 * torch.randn_like(x)
            steps.step(F.mse_loss(net(noisy), x))

    noisy = clean + 0.3 * torch.randn_like(clean)
    with torch.no_grad():
        print(f"error before {F.mse_loss(noisy, clean):.4f}, after {F.mse_loss(net(noisy), clean):.4f}")


if __name__ == "__main__":
    main()
