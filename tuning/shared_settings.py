"""How a search on shared weights is made. Importing this module imports neither Keras nor TensorFlow."""

import dataclasses
from typing import Annotated

from training.recipe import Range, check_numbers
from tuning.slim_settings import FEWEST_IMAGES


@dataclasses.dataclass(frozen=True)
class SharedSettings:
    """How networks of a space share the weights of its widest one. Raises UserError for a value out of range."""

    step_samples: Annotated[int, Range(0, 64, below=False)] = 2
    """Random networks that a step of the shared training takes beside the widest and the narrowest one."""
    statistics_images: Annotated[int, Range(FEWEST_IMAGES, 10**6, below=False)] = 1024
    """Training images on which the statistics of batch normalization are measured for each trial."""
    retrain: Annotated[int, Range(0, 10**4, below=False)] = 0
    """Trials that are trained alone after the search, by the recipe: the best, or with --pareto those evenly spread
    over the front, from the most accurate on. The best of all that were trained alone is the search's best."""
    rank_check: Annotated[int, Range(0, 10**4, below=False)] = 0
    """Trials, evenly spread over the ranking, that are trained alone to correlate both rankings (Spearman)."""

    def __post_init__(self) -> None:
        check_numbers(self)


FREE = ("retrain", "rank_check")  # which may differ when a search resumes
