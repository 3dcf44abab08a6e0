"""Grades that are ordered, "low" < "mid" < "high": one number, and how far a guess is off."""

from dataclasses import dataclass

import numpy as np
import torch

from steepest.tasks.target import Target, floats, refuse_args

GRADES = ("low", "mid", "high")


class Off:
    names = ("grades_off",)

    def __init__(self):
        self.reset()

    def reset(self):
        self.sums = []

    def update(self, outputs, target, w):
        off = (outputs.reshape(target.shape).round().clamp(0, 2) - target).abs()
        self.sums.append(torch.stack([(w * off).sum(), w.sum()]))

    def compute(self):
        if not self.sums:
            return {}
        off, weight = torch.stack(self.sums).sum(0)
        return {"grades_off": off / weight}


@dataclass(frozen=True)
class Grades(Target):
    names: tuple = ("grade",)
    why: str = ""
    task = "ordered"
    noun = "a grade"
    loss = "mean_squared_error"
    layouts = ("numbers",)

    def shape(self, layout):
        return (1,)

    def encode(self, target):
        return np.array([GRADES.index(grade) for grade in target], dtype=np.float32)

    def decode(self, outputs):
        return np.array(GRADES)[floats(outputs).reshape(-1).round().clip(0, 2).astype(int)]

    def metrics(self):
        return Off()

    def sentences(self):
        return [f"Predicts {self.names[0]}, a grade from low to high: {self.why}."]

    def config(self):
        return {"names": list(self.names), "why": self.why}

    @classmethod
    def of(cls, config):
        return cls(tuple(config["names"]), config["why"])


def recognise(source):
    held = source.target.ndim == 1 and set(source.target.tolist()) == set(GRADES)
    return "its values are grades" if held else None


def pose(source, why, args):
    refuse_args("ordered", args)
    return Grades(source.targets, why)


def restore(config):
    return Grades.of(config)
