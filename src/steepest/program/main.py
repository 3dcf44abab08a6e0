"""`main` of a program: the data, the loop, when to evaluate, go back and stop."""

from __future__ import annotations

from steepest.program import descent, inputs
from steepest.program.facts import Facts, Piece
from steepest.program.gather import first_batch
from steepest.train import settled

MAIN = '''def endless(loader):
    """One pass after the other."""
    while True:
        yield from loader


def main(path):
    """Train on the rows in a file; the validation loss of the best weights."""
    {threads}data = torch.load(path)
    train{val} = {rows}(*data["train"]){more}{weights}
    torch.manual_seed(SEED)
    model = build_model(){placed}
    optimizers = build_optimizers(model){averages}
    chance = torch.Generator().manual_seed(SEED)
    size = {size}
    # A single row left over would be a batch that batch norms cannot measure.
    single = len(train) % size == 1
    loader = DataLoader(train, size, shuffle=True, drop_last=single, generator=chance){count}
{course}


if __name__ == "__main__":
    print("{measured}", main(*(sys.argv[1:] or ["data.pt"])))'''

COURSE = """    {held}{start}
    for step, batch in zip(range(1, STEPS + 1), endless(loader)):{augment}
        update(model, optimizers, batch, step{factor}){follow}
        if step % EVALUATE_EVERY and step < STEPS:
            continue
{evaluation}
    if kept is None:
        raise SystemExit("val/loss was never finite.")
    model.load_state_dict(kept)
    return best"""

EVALUATION = """        value = evaluate({tested}, val, count)
        print(f"step {{step}}  val/loss {{value:.6g}}", flush=True)
{waits}        if value < best{gain}:
            best, {gained}kept = value, {zeros}copy.deepcopy({tested}.state_dict()){held}{plateau}"""

RENEWED = "        renew({tested}, itertools.islice(loader, 100))"

COUNT = """
    # What the loss is divided by: rows, or the sum of their weights where they have such.
    count = data["val"][2].sum().item() if len(data["val"]) > 2 else len(val)"""

HELD = """
            back = copy.deepcopy((model.state_dict(), [one.state_dict() for one in optimizers]{also}))"""

STOP = """
        if waited == PATIENCE:
            break"""

PLATEAU = """
        if waited == PATIENCE:
            if falls == {most}:
                break
            waited, falls, factor = 0, falls + 1, factor * {by!r}
            model.load_state_dict(back[0])
            for optimizer, state in zip(optimizers, copy.deepcopy(back[1]), strict=True):
                optimizer.load_state_dict(state)"""

BACK = """
            averages.load_state_dict(back[2])
            updates = back[3]"""

LAST = """    for step, batch in zip(range(1, STEPS + 1), endless(loader)):{augment}
        loss = update(model, optimizers, batch, step){follow}
    return loss"""

FOLLOW = """
        follow(averages, model, step)"""

COUNTED = """
        updates += 1
        follow(averages, model, updates)"""

BALANCED = """
    counts = torch.bincount(data["train"][1])
    class_weight = len(train) / (len(counts) * counts)"""

WEIGHED = """
    {names} = (
        {rows}(*data[part][:2], torch.stack([class_weight[data[part][1]], *data[part][2:]]).prod(0))
        for part in {parts!r}
    )"""


def piece(facts: Facts) -> Piece:
    """`main`, which is given the path of a file of tensors."""
    recipe, validated = facts.recipe, facts.recipe.monitor.startswith("val/")
    rows = inputs.rows(facts)
    code = MAIN.format(
        threads=f"torch.set_num_threads({recipe.num_threads})\n    " if recipe.num_threads else "",
        val=", val" if validated else "",
        rows=rows,
        more=f', {rows}(*data["val"])' if validated else "",
        weights=_weights(facts, rows, validated),
        placed=_placed(facts),
        averages="\n    averages = copy.deepcopy(model)" if recipe.average else "",
        size="len(train)" if first_batch(recipe)[0] is None else "min(BATCH_SIZE, len(train))",
        course=_course(facts, validated),
        count=COUNT if validated else "",
        measured="val/loss" if validated else "train/loss",
    )
    return Piece(code, ("import copy", "import math", "import sys"), notes=_notes(facts, validated))


def _placed(facts: Facts) -> str:
    recipe = facts.recipe
    compiled = "\n    model.compile()" if recipe.compile else ""
    return ("\n    model.to(DEVICE)" if inputs.elsewhere(facts) else "") + compiled


def _weights(facts: Facts, rows: str, validated: bool) -> str:
    """Lines that weigh each row by its class."""
    how = facts.recipe.class_weight
    if how is None:
        return ""
    each = BALANCED if how == "balanced" else f"\n    class_weight = torch.tensor({facts.class_weight!r})"
    names, parts = ("train, val", ("train", "val")) if validated else ("(train,)", ("train",))
    return each + WEIGHED.format(rows=rows, names=names, parts=parts)


def _course(facts: Facts, validated: bool) -> str:
    recipe, stopping = facts.recipe, settled.stopping_of(facts.recipe)
    augment = "\n        batch[0] = augmented(batch[0], chance)" if recipe.augment else ""
    if inputs.elsewhere(facts):
        augment += f"\n        batch = {inputs.moved(facts, 'batch')}"
    if not validated:
        return LAST.format(augment=augment, follow=FOLLOW if recipe.average else "")
    # What an optimizer averages is tested within `evaluate`, where there is nothing to go back to.
    moves = stopping.patience is not None and stopping.max_decays > 0 and not descent.averages(facts)
    # What is gone back to is all that the run goes back to, the average and its counter too.
    rewound = moves and bool(recipe.average)
    held = HELD.format(also=", averages.state_dict(), updates" if rewound else "") if moves else ""
    plateau = PLATEAU.format(most=stopping.max_decays, by=stopping.decay_factor) if moves else ""
    plateau += BACK if rewound else ""
    plateau = STOP if stopping.patience is not None and not moves else plateau
    patient = stopping.patience is not None
    names = ["waited", "falls"] if moves else ["waited"] if patient else []
    evaluation = EVALUATION.format(
        tested="averages" if recipe.average else "model",
        waits="        waited += 1\n" if patient else "",
        gain=" - (MIN_DELTA if best < math.inf else 0.0)" if stopping.min_delta else "",
        gained="".join(f"{name}, " for name in names),
        zeros="0, " * len(names),
        held=held,
        plateau=plateau,
    )
    first = {"best": "math.inf", "kept": "None", **dict.fromkeys(names, "0")}
    first |= {"factor": "1.0"} if moves else {}
    first |= {"updates": "0"} if rewound else {}
    return COURSE.format(
        held=f"{', '.join(first)} = {', '.join(first.values())}",
        start=held.replace(" " * 12, " " * 4),
        augment=augment,
        follow=COUNTED if rewound else FOLLOW if recipe.average else "",
        factor=", factor" if moves else "",
        evaluation=_evaluated(facts, evaluation),
    )


def _evaluated(facts: Facts, lines: str) -> str:
    """Renewed statistics beside averages; the weights to test, where the optimizer holds them."""
    if facts.recipe.average:
        return f"{RENEWED.format(tested='averages')}\n{lines}"
    if descent.averages(facts):
        within = f"{RENEWED.format(tested='model')}\n{lines}".splitlines()
        return "\n".join(["        with optimizers[0].evaluate():", *(f"    {line}" for line in within)])
    return lines


def _notes(facts: Facts, validated: bool) -> tuple[str, ...]:
    recipe = facts.recipe
    said = {
        f"the best weights go by val/loss, the run's by {recipe.monitor}": (
            validated and recipe.monitor != "val/loss"
        ),
        "the last weights are kept: there was no validation part": not validated,
        "the rate does not fall at a plateau, where the rule averages weights itself": (
            recipe.schedule == "plateau" and descent.averages(facts)
        ),
        f"raise_after={recipe.raise_after} has no counterpart": recipe.raise_after is not None,
    }
    return tuple(sentence for sentence, holds in said.items() if holds)
