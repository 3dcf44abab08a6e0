"""The optimizer library stands alone: it runs where no other room of the project can be imported."""

import subprocess
import sys

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder


class Nothing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith("steepest.") and name.split(".")[1] != "optim":
            raise ImportError(f"{name} is another room")


sys.meta_path.insert(0, Nothing())

import torch
from steepest.optim import batch, clipping, groups, lr_finder, noise, rules, schedule, wrappers
from steepest.optim.engines.torch.of_model import optimizer

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
x = torch.randn(64, 4)
y = x.sum(1, keepdim=True)
loss = torch.nn.functional.mse_loss
first = loss(net(x), y).item()
found = lr_finder.find_rate(net, loss, [(x, y)], "adamw")
average = wrappers.averaged(rules.AdamW(lr=schedule.Constant(0.02)))
for rule in (average, rules.MuonMatched(lr=0.01), rules.LAMB(lr=0.01)):
    moves = optimizer(net, rule)
    for _ in range(5):
        moves.zero_grad()
        loss(net(x), y).backward()
        scale = clipping.ClipNorm(10.0).scale(moves.gradient_norm())
        moves.step(scale=scale)
    moves.load_state_dict(moves.state_dict())
    with moves.evaluate():
        pass
assert loss(net(x), y).item() < first, "it trains"
assert found.suggestion > 0
others = sorted(m for m in sys.modules if m.startswith("steepest.") and m.split(".")[1] != "optim")
print("alone", others)
"""


def test_a_few_steps_where_no_other_room_can_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout.strip() == "alone []", done.stderr
