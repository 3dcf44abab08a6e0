"""What starting costs: `import steepest` and `steepest --help` over a bare interpreter, in milliseconds.

Fresh processes, bare and with, in turn; the median of the paired differences.

python benchmarks/startup.py [n]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import write

COMMAND = Path(sys.executable).with_name("steepest")
BARE = [sys.executable, "-c", "pass"]
CASES = {
    "import": [sys.executable, "-c", "import steepest"],
    "help": [str(COMMAND), "--help"],
    "help of fit": [str(COMMAND), "fit", "--help"],
}


def seconds(command: list[str]) -> float:
    """Wall time of a process from start to end."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return statistics.quantiles(values, n=4, method="inclusive")


def main(pairs: int) -> None:
    """Measure each case against the bare interpreter."""
    for case, command in CASES.items():
        seconds(command)
        differences = [1e3 * (-seconds(BARE) + seconds(command)) for _ in range(pairs)]
        low, middle, high = quartiles(differences)
        write("startup", case=case, n=pairs, median_ms=middle, quartiles_ms=[round(low, 2), round(high, 2)])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
