"""The one line that changes in a PyTorch program; the weights come out the same up to rounding.

python examples/drop_in.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import steepest.torch

STEPS = 100


def train(optimizer_class: type[torch.optim.Optimizer]) -> nn.Module:
    """Full-batch descent on the digits, always from the same start."""
    x, y = load_digits(return_X_y=True)
    inputs, labels = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = optimizer_class(net.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    return net


def main() -> None:
    """Train with both and compare every weight."""
    theirs, ours = train(torch.optim.AdamW), train(steepest.torch.AdamW)
    pairs = zip(theirs.parameters(), ours.parameters(), strict=True)
    difference = max((a - b).abs().max().item() for a, b in pairs)
    print(f"largest difference of a weight after {STEPS} steps: {difference:.1e}")


if __name__ == "__main__":
    main()
