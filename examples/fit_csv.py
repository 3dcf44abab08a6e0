"""Train on a CSV file, look at what was decided, and predict with the run later.

python examples/fit_csv.py
"""

from pathlib import Path

import polars as pl
from sklearn.datasets import load_wine

import steepest as st


def write_table(path: Path) -> None:
    """178 Italian wines: 13 measurements, and who grew them."""
    wine = load_wine()
    table = pl.DataFrame(wine.data, schema=wine.feature_names)
    grower = pl.Series("grower", [f"grower {label}" for label in wine.target])
    table.with_columns(grower).write_csv(path)


def main() -> None:
    """Fit, read the run, predict."""
    path = Path("wine.csv")
    write_table(path)

    run = st.fit(str(path), target="grower", budget="30 epochs", out="runs/wine")
    for name, value in run.metrics.items():
        print(f"{name:20} {value:.4g}")
    for choice in run.evidence:
        print(choice)

    later = st.Run("runs/wine")
    print(later.predict(str(path))[:5])


if __name__ == "__main__":
    main()
