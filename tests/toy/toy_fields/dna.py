"""A column of sequences of A, C, G and T: counts of words of `word` letters."""

from itertools import product

import numpy as np
import polars as pl
import torch

from steepest.data.kinds.encoder import Encoder, refuse_args


class Dna(Encoder):
    suits = "toy_linear"

    def __init__(self, word):
        super().__init__()
        self.kind, self.word, self.shape = "dna", word, (4**word,)

    def read(self, raw):
        words = ["".join(letters) for letters in product("ACGT", repeat=self.word)]
        counts = [[sum(text.startswith(w, i) for i in range(len(text))) for w in words] for text in raw]
        return torch.from_numpy(np.array(counts, dtype=np.int16))

    def forward(self, *fields):
        counts = fields[0].float()
        return counts / counts.sum(1, keepdim=True).clamp_min(1)

    def config(self):
        return {"word": self.word}


def recognise(field, settings):
    text = isinstance(field, pl.Series) and field.dtype == pl.String
    return "letters A, C, G and T" if text and field.str.contains("^[ACGT]+$").all() else None


def fit(field, name, settings):
    args = settings.of(name, "dna")
    refuse_args("dna", args, ("word",))
    return Dna(args.get("word", 2))


def restore(config):
    return Dna(config["word"])
