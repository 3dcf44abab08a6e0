"""Every kind of data keeps its type until the network, loses nothing on the way, and is exported with it."""

import gc

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import steepest as st
from steepest import tasks
from steepest.data import kinds, sources
from steepest.data.batches import Held
from steepest.data.kinds import scaled
from steepest.data.kinds.scaled import narrowest
from steepest.train import preprocessing
from steepest.train.prepare import parts_of

rng = np.random.default_rng(0)
N = 1000
Y = np.arange(N) % 3
X = rng.normal(50, 20, size=(N, 5))
PICTURES = rng.integers(0, 256, (N, 1, 8, 8), dtype=np.uint8)
TABLE = pl.DataFrame(
    {
        "age": X[:, 0],
        "rooms": rng.integers(0, 9, N),
        "sold": np.arange(N).astype("M8[D]"),
        "sure": np.arange(N) % 2 == 0,
        "city": rng.choice(["Bonn", "Lund", "Pisa"], N),
        "gap": np.where(np.arange(N) % 7, X[:, 1], np.nan),
    }
)
TOKENS = rng.integers(0, 30, (N, 6))


class Words(nn.Module):
    def __init__(self, *_):
        super().__init__()
        self.table = nn.Embedding(30, 4)
        self.out = nn.Linear(24, 3)

    def forward(self, ids):
        return self.out(self.table(ids).flatten(1))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.numbers = Words(), nn.Linear(5, 3)

    def forward(self, ids, x):
        return self.words(ids) + self.numbers(x)


DATA = {
    "picture": (PICTURES, {}),
    "array": (X, {}),
    "series": (rng.normal(size=(N, 7, 2)), {}),
    "table": (TABLE, {}),
    "numbers of a table": (TABLE.select("age", "gap"), {}),
    "categories alone": (TABLE.select("city"), {}),
    "integers": (TOKENS, {"model": Words}),
    "two by name": ({"ids": TOKENS, "x": X}, {"model": Two}),
    "two by place": ((TOKENS, X), {"model": Two}),
}
MODELS = {"picture": ("linear", "mlp", "cnn"), "array": ("linear", "mlp")}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", DATA)
def test_a_run_is_exported_whole_and_gives_the_same(name):
    data, settings = DATA[name]
    for model in MODELS.get(name, ("auto",)):
        net = settings["model"]() if settings else model
        run = st.fit((data, Y), model=net, budget="3 steps", lr=0.01, log=[])
        run = st.Run(run.folder, model=settings["model"]() if settings else None)
        fields = run.preprocessing.read(data)
        given = ((), fields) if isinstance(fields, dict) else (fields, {})
        args = given[0] if isinstance(given[0], tuple) else (given[0],)
        program = torch.export.export(run.model, args, given[1]).module()
        with torch.no_grad():
            outputs = program(*args, **given[1])
            torch.testing.assert_close(outputs, run.model(*args, **given[1]))
        assert (run.preprocessing.target.predictions(outputs) == run.predict(data)).all()


@pytest.mark.parametrize(
    "values",
    [
        np.arange(256, dtype=np.uint8)[:, None],
        (1.7e9 + 60 * np.arange(1440))[:, None],
        rng.normal(1e6, 1e-3, (500, 3)),
        rng.normal(size=(40, 3, 5, 5)),
        rng.integers(-(2**40), 2**40, (300, 2)),
        rng.normal(size=(200, 2)).astype(np.float16),
        np.where(rng.random((300, 2)) < 0.1, np.nan, rng.normal(size=(300, 2))),
        rng.random((100, 2)) < 0.5,
    ],
)
@pytest.mark.parametrize("scale", ["standard", "minmax", None])
def test_numbers_lose_nothing_on_their_way(values, scale):
    made = scaled.fit(values, scale, "median")
    encoder = kinds.fit(values, "inputs", kinds.Settings(scale=scale))
    read = encoder.read(values)
    assert read.element_size() <= values.dtype.itemsize
    x = np.asarray(values, dtype=np.float64)
    across = np.moveaxis(x, 1, -1) if x.ndim == 4 else x
    across = across if made.fill is None else np.where(np.isnan(across), made.fill, across)
    expected = ((across - made.shift) / made.scale).astype(np.float32)
    expected = np.moveaxis(expected, -1, 1) if x.ndim == 4 else expected
    np.testing.assert_array_equal(encoder(read).numpy(), expected)
    half = kinds.fit(values, "inputs", kinds.Settings(scale=scale)).to(torch.bfloat16)
    np.testing.assert_array_equal(half(read).numpy(), expected, err_msg="constants stay float64")


def test_the_narrowest_type_is_exact():
    for values, kind in [
        (np.array([0, 255]), np.uint8),
        (np.array([-1, 100]), np.int8),
        (np.array([-1, 255]), np.int16),
        (np.array([0, 2**31 - 1], np.uint32), np.int32),
        (np.array([2**40]), np.int64),
        (np.array([2**63], np.uint64), np.float32),
        (np.array([0.5, np.nan]), np.float32),
        (np.array([0.1]), np.float64),
        (np.array([1e300]), np.float64),
        (np.array([True]), np.uint8),
    ]:
        found = narrowest(values)
        assert found.dtype == kind
        np.testing.assert_array_equal(found.astype(np.float64), values.astype(np.float64))


def test_pictures_in_bytes_stay_bytes_while_they_are_trained_on():
    pictures = np.zeros((2000, 1, 160, 160), np.uint8)
    pictures[::2, :, 40:80] = 200
    gc.collect()
    before = held()
    net = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(100, 2))
    seen = []
    st.fit(
        (pictures, np.arange(2000) % 2),
        model=net,
        budget="3 steps",
        lr=0.01,
        log=[],
        on_step=lambda *_: seen.append(held()),
    )
    assert max(seen) - before <= 1.2 * pictures.nbytes


def held():
    """Bytes of all tensors that are alive, each memory once; of arrays behind them too."""
    storages = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, nn.Parameter) and one.layout == torch.strided:
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(storages.values())


def test_wide_features_are_made_batch_by_batch_with_the_same_bits(monkeypatch):
    settings = {"budget": "8 steps", "lr": 0.01, "log": [], "augment": "shift", "model": "cnn"}
    ahead = st.fit((PICTURES, Y), **settings)
    monkeypatch.setattr(preprocessing, "AHEAD", 0)
    source = sources.read((PICTURES, Y))
    part = preprocessing.fit(source, tasks.pose(source), np.arange(N)).examples(source, np.arange(N))
    assert isinstance(part, Held)
    assert parts_of(part)[0].dtype == torch.uint8
    later = st.fit((PICTURES, Y), **settings)
    for one, two in zip(ahead.network.parameters(), later.network.parameters(), strict=True):
        assert torch.equal(one, two)
    for name, rows in ahead.tensors().items():
        assert all(torch.equal(a, b) for a, b in zip(rows, later.tensors()[name], strict=True))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("model", [Words, Words()], ids=["function", "network"])
def test_whole_numbers_reach_an_embedding(kind, model):
    data = (TOKENS.astype(kind), TOKENS[:, 0] % 3)
    run = st.fit(data, model=model, budget="10 steps", lr=0.05, log=[])
    assert run.network.table.weight.shape == (30, 4)
    assert st.Run(run.folder, model=Words()).predict(data[0]).shape == (N,)
    with pytest.raises(st.UserError, match="whole numbers to look up"):
        run.predict(X)


def test_a_network_without_an_embedding_gets_scaled_numbers():
    net = nn.Linear(6, 3)
    run = st.fit((TOKENS, Y), model=net, budget="3 steps", lr=0.05, log=[])
    assert run.preprocessing.apply(TOKENS).dtype == np.float32
    assert run.network is net


def test_a_network_comes_back_as_it_was():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    names = [*net.state_dict()]
    run = st.fit((X, Y), model=net, budget="3 steps", lr=0.01, log=[])
    assert run.network is net
    assert [*net.state_dict()] == names
    from safetensors.torch import load_file

    assert sorted(load_file(run.folder / "model.safetensors")) == sorted(names)
    assert "inputs" not in dict(net.named_modules())


def test_how_a_column_is_read_is_part_of_what_was_fitted(tmp_path):
    codes = TABLE.with_columns(code=pl.Series(["7", "8", "x9", "10"] * 250), y=pl.Series(Y))
    run = st.fit(codes, target="y", budget="5 steps", lr=0.01, log=[])
    given = codes.drop("y").with_columns(code=pl.Series([7.0, 8.0, 7.0, 10.0] * 250))
    same = codes.drop("y").with_columns(code=pl.Series(["7", "8", "7", "10"] * 250))
    np.testing.assert_array_equal(run.preprocessing.apply(given), run.preprocessing.apply(same))
    as_text = same.with_columns(pl.col("sold").dt.strftime("%Y-%m-%d"), pl.col("age").cast(pl.String))
    np.testing.assert_array_equal(run.preprocessing.apply(as_text), run.preprocessing.apply(same))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"inputs": {"kind": "pictre"}}, "Did you mean 'picture'"),
        ({"inptus": {}}, "Did you mean 'inputs'"),
        ({"array": {"bins": 3}}, "takes none"),
    ],
)
def test_kind_args_that_cannot_be(args, says):
    with pytest.raises(st.UserError, match=says):
        st.fit((X, Y), kind_args=args, budget="1 step", log=[])
