"""Everything that this project takes from Keras Tuner's private names, and the versions that it was tested with.

Keras Tuner writes its files in place and reloads them as if a kill could not come between two of them; its Gaussian
process cannot be asked about samples of one's own. The classes here give what is needed for that public names.
"""

import contextlib
import importlib.metadata
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras_tuner as kt
import numpy as np
from keras_tuner.engine import trial as kt_trials
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.src import config as kt_config

from inception_v1.atomic_files import atomic_file
from tuning.results import COMPLETED, FAILED

TESTED = ("1.4",)  # releases of Keras Tuner; `setup.py` allows no others


class PersistentOracle(kt.Oracle):
    """An oracle whose files are whole or absent, and that resumes where they leave off, whenever it was killed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        names = ("_duplicate", "_compute_values_hash", "_seed_state", "_get_oracle_fname", "_get_trial_dir")
        _check_attributes(self, (*names, "_save_trial", "_retry_queue"))

    def identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """What distinguishes two samples; equal for those that count as one."""
        return dict(values)

    def is_duplicate(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial has this sample."""
        return self._duplicate(values)

    def next_seed(self) -> int:
        """A seed that no draw has used yet."""
        self._seed_state += 1
        return self._seed_state

    def save(self) -> None:
        with atomic_file(Path(self._get_oracle_fname())) as part:
            super(kt.Oracle, self).save(str(part))

    def reload(self) -> None:
        """Resumes from the files: the oracle's own and one for each trial, which a kill can leave a step apart."""
        super().reload()
        for trial_id in set(self.trials) - set(self.start_order):  # begun, but not noted: it will be made again
            del self.trials[trial_id]
        ended = [i for i in self.start_order if self.trials[i].status in (COMPLETED, FAILED)]
        self.end_order += [i for i in ended if i not in self.end_order]
        self._retry_queue = [i for i in reversed(self.start_order) if i not in ended]  # taken from its end

    def _compute_values_hash(self, values: Mapping[str, Any]) -> str:
        return super()._compute_values_hash(self.identity(values))

    def _save_trial(self, trial: kt_trials.Trial) -> None:
        with atomic_file(Path(self._get_trial_dir(trial.trial_id), "trial.json")) as part:
            trial.save(str(part))


class GaussianProcessOracle(kt.oracles.BayesianOptimizationOracle):
    """Keras Tuner's oracle of a Gaussian process, with a regressor and candidates of one's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _check_attributes(self, ("_make_gpr", "_random_populate_space", "_vectorize_trials", "_nonfixed_space"))

    def make_regressor(self) -> Any:
        """The Gaussian process to fit; kept as `gpr`."""
        raise NotImplementedError

    def random_response(self) -> dict[str, Any]:
        """A random sample as `populate_space` returns it."""
        return self._random_populate_space()

    def observations(self) -> tuple[np.ndarray, np.ndarray]:
        """Points `(trials, dimensions)` and scores `(trials,)` so far, lower being better."""
        return self._vectorize_trials()

    def vectors(self, samples: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Samples as points, `(samples, dimensions)`."""
        return np.array([[hp.value_to_prob(values[hp.name]) for hp in self._nonfixed_space()] for values in samples])

    def _make_gpr(self) -> Any:
        return self.make_regressor()


class PersistentTuner(kt.Tuner):
    """A tuner whose file is whole or absent."""

    def __init__(self, oracle: kt.Oracle, folder: Path, name: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # "Reloading Tuner"
            super().__init__(oracle, directory=str(folder), project_name=name)
        _check_attributes(self, ("_is_worker", "_get_tuner_fname"))
        kt_config.DEBUG = False  # the traceback of a failed trial is in its file, and need not be on the screen

    def save(self) -> None:
        if not self._is_worker():
            self.oracle.save()
        with atomic_file(Path(self._get_tuner_fname())) as part:
            super(BaseTuner, self).save(str(part))


def read_trials(folder: Path) -> list[Any]:
    """Keras Tuner's trials as their files hold them, in order."""
    trials = [kt_trials.Trial.load(str(path)) for path in folder.glob("trial_*/trial.json")]
    return sorted(trials, key=lambda trial: int(trial.trial_id))


@contextlib.contextmanager
def original_errors() -> Iterator[None]:
    """Raises the error that ended a search, not the one that Keras Tuner wraps it in."""
    try:
        yield
    except kt.errors.FatalError as error:
        raise error.__cause__ or error from None


def _check_attributes(owner: Any, names: Sequence[str]) -> None:
    if missing := [name for name in names if not hasattr(owner, name)]:
        raise RuntimeError(
            f"Expected Keras Tuner {' or '.join(TESTED)}, whose {type(owner).__name__} has {', '.join(missing)}; "
            f"Received: Keras Tuner {importlib.metadata.version('keras-tuner')}, which has not. "
            f"Install keras-tuner=={TESTED[-1]}.*."
        )
