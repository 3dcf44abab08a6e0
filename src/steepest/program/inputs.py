"""Inputs of a program, one tensor or several: how rows are held, moved and cut, and the network called."""

from __future__ import annotations

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

AS_ONE = '''


class AsOne(nn.Module):
    """A network that takes its inputs as one argument, as torch's renewal of batch norms gives them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.{call}'''

RENEW = "torch.optim.swa_utils.update_bn({loader}, {model})"


def piece(facts: Facts) -> str:
    """What programs of several inputs need besides."""
    if not several(facts):
        return ""
    return EACH + (AS_ONE.format(call=call(facts)) if facts.recipe.average else "")


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


def renew(facts: Facts) -> str:
    """The line that measures the batch norms of the averages anew."""
    loader = "itertools.islice(loader, 100)"
    if not several(facts):
        return RENEW.format(loader=loader, model="averages" + (", DEVICE" if elsewhere(facts) else ""))
    loader = f"({moved(facts, 'batch')} for batch in {loader})" if elsewhere(facts) else loader
    return RENEW.format(loader=loader, model="AsOne(averages)")
