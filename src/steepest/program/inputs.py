"""Inputs of a program, one tensor or several: how rows are held, moved and cut, and the network called."""

from __future__ import annotations

from steepest.program import descent
from steepest.program.facts import Facts

EACH = '''


def each(function, tree):
    """The same nested tensors with `function` of every one."""
    if isinstance(tree, dict):
        return {name: each(function, part) for name, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        return [each(function, part) for part in tree]
    return function(tree)


class Rows(torch.utils.data.Dataset):
    """Rows of several inputs, with their targets."""

    def __init__(self, *parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts[1])

    def __getitem__(self, i):
        return each(lambda x: x[i], self.parts)'''

RENEW = '''


@torch.no_grad()
def renew(model, batches):
    """Running statistics of batch norms as plain means over these batches; all else works as in a test."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # torch's sign for the mean over all batches
    for batch in batches if norms else ():
        inputs, *_ = {batch}
        {call}'''


def piece(facts: Facts) -> str:
    """What programs of several inputs need besides, and those that test averages."""
    averaged = facts.recipe.average or descent.averages(facts)
    tested = averaged and facts.recipe.monitor.startswith("val/")
    batch = moved(facts, "batch") if elsewhere(facts) else "batch"
    # torch's own update_bn has dropout at work, so that norms after it would measure another network.
    renews = RENEW.format(batch=batch, call=call(facts)) if tested else ""
    return (EACH if several(facts) else "") + renews


def several(facts: Facts) -> bool:
    """Whether an example has more than one tensor of inputs."""
    return isinstance(facts.shape, dict) or not all(isinstance(n, int) for n in facts.shape)


def rows(facts: Facts) -> str:
    """The class that holds rows."""
    return "Rows" if several(facts) else "TensorDataset"


def call(facts: Facts) -> str:
    """The call of the network."""
    return f"model({('**' if isinstance(facts.shape, dict) else '*') if several(facts) else ''}inputs)"


def elsewhere(facts: Facts) -> bool:
    """Whether rows must be moved to another device."""
    return facts.recipe.device not in ("cpu", "auto")


def moved(facts: Facts, batch: str) -> str:
    """A batch, or a tuple of its parts, on the device."""
    return (
        f"each(lambda x: x.to(DEVICE), {batch})"
        if several(facts)
        else f"[part.to(DEVICE) for part in {batch}]"
    )


def cut(facts: Facts) -> str:
    """The head of a loop over parts of `size` examples."""
    if not several(facts):
        return "for inputs, target, *weight in zip(*(part.split(size) for part in batch), strict=True):"
    return (
        "for begin in range(0, len(batch[1]), size):\n"
        "        inputs, target, *weight = each(lambda x: x[begin : begin + size], batch)"
    )
