"""Update rules written a second time, in float64 and plain NumPy, from their papers alone.

Nothing here imports steepest. A path is a generator: given a start, a gradient (a function of the weights and
the step), a rate (a function of the step) and the hyperparameters by name, it gives the weights after each
step. A path over a model does so for a list of weights at once.
"""

from papers import (
    adam,
    adaptive,
    averaged,
    classical,
    curvature,
    factored,
    kronecker,
    layerwise,
    low_rank,
    orthogonal,
    parameter_free,
    quasi_newton,
    rectified,
)
from papers.paper import Paper

MODULES = (
    classical,
    adam,
    rectified,
    adaptive,
    curvature,
    layerwise,
    averaged,
    parameter_free,
    factored,
    orthogonal,
    kronecker,
    low_rank,
    quasi_newton,
)
PAPERS: dict[str, Paper] = {paper.rule: paper for module in MODULES for paper in module.PAPERS}
"""Every rule by its name in the registry."""
