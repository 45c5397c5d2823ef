"""Search spaces as data, samples of them as networks and recipes, and the budget that every sample keeps.

A sample is a value for each dimension. Those of the widths are multipliers of the network that the search starts from,
or the widths themselves; a common factor brings a sample that costs too much or too little into the budget before any
network is built.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from inception_v1.cost import classifier_cost
from inception_v1.dependencies import convolution_widths
from inception_v1.extras import extra
from inception_v1.spec import BLOCKS, Spec, Widths, check_choice, round_width
from training.errors import UserError
from training.recipe import Recipe
from tuning.budget import Budget
from tuning.latency_table import LatencyTable

if typing.TYPE_CHECKING:
    import keras_tuner as kt

Value = float | int | str
Values = Mapping[str, Any]  # dimension to value, or to an array with one element a sample

BRANCH_WIDTHS = {  # convolutions of a block by branch; a reduction goes with what it feeds
    "1x1": ("conv1",),
    "3x3": ("reduce3", "conv3"),
    "5x5": ("reduce5", "conv5"),
    "pool": ("pool",),
}
STAGES = {stage: tuple(block for block in BLOCKS if block[0] == stage) for stage in "345"}
GRID = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 1.75, 2.0)  # multipliers that a grid search steps through
MULTIPLIERS = (GRID[0], GRID[-1])  # bounds of the multipliers, unless others are asked for
STEM = "stem"  # the dimension that multiplies the widths before the first block
Convolutions = tuple[tuple[str, ...], tuple[str, ...]]  # names of the blocks, and of the convolutions in each
SPACES: dict[str, dict[str, Convolutions]] = {  # what each dimension sets
    "branches": {branch: (tuple(BLOCKS), fields) for branch, fields in BRANCH_WIDTHS.items()},
    "stages": {
        f"{stage}/{branch}": (blocks, fields)
        for stage, blocks in STAGES.items()
        for branch, fields in BRANCH_WIDTHS.items()
    },
    "blocks": {f"{block}/{field}": ((block,), (field,)) for block in BLOCKS for field in Widths._fields},
}
VARIANTS = ("batchnorm", "paper", "plain")  # normalization: batch, local response, none
RECIPE = ("learning_rate", "weight_decay", "aux_weight", "dropout", "normalization")
FACTORS = {"learning_rate": (0.25, 4.0), "weight_decay": (0.1, 10.0)}  # of the recipe's own, spread evenly in the log
RANGES = {"aux_weight": (0.0, 1.0), "dropout": (0.0, 0.7)}
GRID_STEPS = 5  # values of such a range in a grid search
OCTAVES, HALVINGS = 5, 16  # of the common factor: 2 ** -5 to 2 ** 5, to a ten-thousandth
FEW = 100  # samples for which four halvings at once take hardly longer than one
REDRAWS = 1000  # random samples of which at least one must fit the budget


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One number or choice of a space.

    Attributes:
        name: of it.
        low, high: bounds of a number, both included.
        default: value in the network and recipe that the search starts from.
        spread: "log" for even in the logarithm, "linear", or "widths" for whole multiples of 8.
        choices: the values of one that is no number.
        blocks, convolutions: the widths that it sets; () for one of the recipe.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    default: Value = 1.0
    spread: Literal["log", "linear", "widths"] = "log"
    choices: tuple[Value, ...] = ()
    blocks: tuple[str, ...] = ()
    convolutions: tuple[str, ...] = ()

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Values of so many random samples."""
        if self.choices:
            return np.asarray(self.choices)[rng.integers(len(self.choices), size=count)]
        if self.spread == "widths":
            return rng.choice(self.grid(), size=count)
        if self.spread == "log":
            return self.round(np.exp(rng.uniform(np.log(self.low), np.log(self.high), size=count)))
        return self.round(rng.uniform(self.low, self.high, size=count))

    def round(self, value: Any) -> Any:
        """Numbers within the bounds, with as many digits as a table can show."""
        if self.spread == "widths":
            return np.clip(_rounded(value), self.low, self.high).astype("int64")
        digits = 4 - int(np.floor(np.log10(self.high)))
        return np.clip(np.round(np.asarray(value, "float64"), digits), self.low, self.high)

    def grid(self) -> list[Value]:
        """Values that a grid search steps through."""
        if self.choices:
            return list(self.choices)
        if self.spread == "widths":
            return list(range(int(self.low), int(self.high) + 1, 8))
        if self.blocks:
            return [self.low, *(step for step in GRID if self.low < step < self.high), self.high]
        steps = np.geomspace if self.spread == "log" else np.linspace
        return self.round(steps(self.low, self.high, GRID_STEPS)).tolist()


class Costs(NamedTuple):
    """What networks cost at inference: arrays with one element a network.

    Attributes:
        params: parameters, running statistics included.
        macs: multiply-accumulates for one image.
        seconds: for a batch, by the latency table; zeros without one.
    """

    params: np.ndarray
    macs: np.ndarray
    seconds: np.ndarray


@dataclasses.dataclass(frozen=True)
class Space:
    """Networks and recipes around one of each.

    Attributes:
        name: one of `SPACES`.
        start: the network that the search starts from; its widths are those of its family (under its width multiplier).
        recipe: how to train it.
        also: dimensions of the recipe, of `RECIPE`.
        budget: that every sample keeps.
        grid: whether samples come from a grid.
        proposal: widths of blocks that a search tries right after those of the start, for instance correlated ones.
        multipliers: lowest and highest multiplier of the widths, around 1.
        stem: whether one more dimension multiplies the widths of the convolutions before the first block.
        latency: what networks of these widths take; None where the budget does not bound it.

    Raises:
        UserError: an unknown name, multipliers that leave out 1, a dimension that the recipe has no value for, a
            latency table of another network or of other widths, or a budget that no sample fits; the message names the
            smallest cost of the space.
    """

    name: str
    start: Spec
    recipe: Recipe
    also: tuple[str, ...] = ()
    budget: Budget = dataclasses.field(default_factory=Budget)
    grid: bool = False
    proposal: Mapping[str, Widths] | None = None
    multipliers: tuple[float, float] = MULTIPLIERS
    stem: bool = False
    latency: LatencyTable | None = None

    def __post_init__(self) -> None:
        check_choice("space", self.name, SPACES)
        low, high = self.multipliers
        if not 0 < low <= 1 <= high <= 16 or low == high:
            raise UserError(f"Expected multipliers from 0 to 16 around 1; Received: multipliers={self.multipliers}.")
        for name in self.also:
            check_choice("also", name, RECIPE)
        if len(set(self.also)) < len(self.also):
            raise UserError(f"Expected each dimension of the recipe once; Received: also={self.also}.")
        if self.grid and self.proposal:
            raise UserError("Expected another tuner than 'grid', which tries the points of its grid, with a proposal.")
        if None in self.start.input_shape:
            raise UserError(f"Expected a fixed height and width; Received: input_shape={self.start.input_shape}.")
        self._check_latency()
        object.__setattr__(self, "dimensions", (*self._width_dimensions(), *map(self._recipe_dimension, self.also)))
        object.__setattr__(self, "reference", self.cost(self.default()))
        self._check_reachable()

    dimensions: tuple[Dimension, ...] = dataclasses.field(init=False)
    reference: tuple[int, int] = dataclasses.field(init=False)  # parameters and multiply-accumulates of the start

    def default(self) -> dict[str, Value]:
        """The sample that the search starts from, whatever the budget."""
        return {dimension.name: dimension.default for dimension in self.dimensions}

    def first(self) -> dict[str, Value] | None:
        """The same in the budget: the paper's widths, scaled by one factor where they cost too much. None on a grid
        that they are not on then."""
        return self.fit_to_budget(self.default())

    def proposed(self) -> dict[str, Value] | None:
        """The sample nearest to the proposal, in the budget: a dimension that sets several blocks has the geometric
        mean of what their branches would be multiplied by. None without a proposal, or where no factor brings it into
        the budget."""
        if not self.proposal:
            return None
        values, own = self.default(), self.start.block_widths()
        wanted = own | dict(self.proposal)
        for d in self.dimensions:
            pairs = [(getattr(wanted[b], f), getattr(own[b], f)) for b in d.blocks for f in d.convolutions[-1:]]
            if pairs:
                new, old = np.array(pairs, "float64").T
                mean = new if d.spread == "widths" else np.exp(np.log(new / old).mean())
                values[d.name] = d.round(mean).item()
        return self.fit_to_budget(values)

    def sample(self, count: int, seed: int) -> list[dict[str, Value]]:
        """Random samples that keep the budget; fewer than `count` where some cannot."""
        rng = np.random.default_rng(seed)
        return self._listed({dimension.name: dimension.draw(rng, count) for dimension in self.dimensions})

    def sample_costs(self, count: int, seed: int) -> list[dict[str, Value]]:
        """Random samples, each times a random common factor, so that they reach the whole range of costs: of many
        dimensions nearly all samples cost about the same."""
        rng = np.random.default_rng(seed)
        drawn = {dimension.name: dimension.draw(rng, count) for dimension in self.dimensions}
        return self._listed(self._times(drawn, np.exp2(rng.uniform(-1, 1, count))))

    def neighbors(self, values: Values, count: int, seed: int) -> list[dict[str, Value]]:
        """Samples that differ from one in a single dimension, before the common factor of their budget."""
        rng = np.random.default_rng(seed)
        changed = rng.integers(len(self.dimensions), size=count)
        columns = {}
        for index, dimension in enumerate(self.dimensions):
            drawn, own = dimension.draw(rng, int(sum(changed == index))), values[dimension.name]
            column = np.full(count, own, np.result_type(drawn, np.asarray(own)))  # which holds longer names too
            column[changed == index] = drawn
            columns[dimension.name] = column
        return self._listed(columns)

    def fit_to_budget(self, values: Values) -> dict[str, Value] | None:
        """The sample itself where it keeps the budget, else with its widths scaled by a common factor that does.

        None where no factor does, since it would leave the bounds of the dimensions; on a grid there is none.
        """
        one = {dimension.name: np.asarray([values[dimension.name]]) for dimension in self.dimensions}
        scaled, keeps = (one, self.which_keep(one)) if self.grid else self._scaled(one)
        return {name: column[0].item() for name, column in scaled.items()} if keeps[0] else None

    def cost(self, values: Values) -> tuple[int, int]:
        """Parameters and multiply-accumulates of a sample's network at inference."""
        costs = self.costs({name: np.asarray([value]) for name, value in values.items()})
        return int(costs.params[0]), int(costs.macs[0])

    def seconds(self, values: Values) -> float | None:
        """What a sample's network takes for a batch by the latency table; None without one."""
        return self.latency.seconds(self.network(values)) if self.latency else None

    def which_keep(self, values: Values) -> np.ndarray:
        """Which samples, passed as arrays, keep the budget unchanged."""
        return self._keeps(self.costs(values))

    def keeps(self, values: Values) -> bool:
        """Whether a sample keeps the budget as it is."""
        return bool(self.which_keep({name: np.asarray([value]) for name, value in values.items()})[0])

    def widths(self, values: Values) -> dict[str, Any]:
        """Output channels of every convolution of the body, by its name; arrays where the values are."""
        return convolution_widths(self.start, self._widths(values), self._stem_widths(values))

    def extremes(self) -> tuple[dict[str, Value], dict[str, Value]]:
        """The samples with the smallest and with the largest value of every width, whatever the budget."""
        return self._extreme("low"), self._extreme("high")

    def exact(self, values: Values) -> dict[str, Value]:
        """The sample's own values, as they were before a trip through single precision."""
        found = {}
        for d in self.dimensions:
            value = values[d.name]
            exact = value if d.choices else d.round(value).item()
            found[d.name] = min(d.grid(), key=lambda point: abs(point - exact)) if self._on_grid(d) else exact
        return found

    def network(self, values: Values) -> Spec:
        """The network of a sample."""
        widths = {block: Widths(*(int(n) for n in row)) for block, row in self._widths(values).items()}
        return self._network(values, widths)

    def recipe_of(self, values: Values) -> Recipe:
        """The recipe of a sample."""
        fields = {"variant" if name == "normalization" else name: values[name] for name in self.also}
        return dataclasses.replace(self.recipe, **fields)

    def identity(self, values: Values) -> dict[str, Value]:
        """What distinguishes networks and recipes: equal for samples that are the same after rounding."""
        rows = self._widths(values)
        widths = {f"{block}/{field}": int(n) for block, row in rows.items() for field, n in row._asdict().items()}
        widths |= {f"{STEM}/{place}": int(n) for place, n in enumerate(self._stem_widths(values))}
        return widths | {name: values[name] for name in self.also}

    def hyperparameters(self) -> "kt.HyperParameters":
        """The dimensions as Keras Tuner knows them."""
        with extra("tune"):
            import keras_tuner as kt

        hp = kt.HyperParameters()
        for d in self.dimensions:
            if d.choices or self._on_grid(d):
                hp.Choice(d.name, d.grid(), default=d.default if d.default in d.grid() else None)
            elif d.spread == "widths":
                hp.Int(d.name, int(d.low), int(d.high), step=8, default=int(d.default))
            else:
                hp.Float(d.name, d.low, d.high, sampling=d.spread, default=d.default)
        return hp

    def _listed(self, columns: dict[str, np.ndarray]) -> list[dict[str, Value]]:
        scaled, keeps = self._scaled(columns)
        rows = zip(*(scaled[dimension.name][keeps].tolist() for dimension in self.dimensions), strict=True)
        return [dict(zip(scaled, row, strict=True)) for row in rows]

    def _on_grid(self, dimension: Dimension) -> bool:
        return self.grid and not dimension.choices and dimension.spread != "widths"

    def _width_dimensions(self) -> list[Dimension]:
        found, table = [], self.start.block_widths()
        for name, (blocks, convolutions) in SPACES[self.name].items():
            if self.name != "blocks":
                found.append(Dimension(name, *self.multipliers, blocks=blocks, convolutions=convolutions))
                continue
            own = getattr(table[blocks[0]], convolutions[0])
            low, high = (round_width(own * factor) for factor in self.multipliers)
            found.append(Dimension(name, low, high, own, "widths", blocks=blocks, convolutions=convolutions))
        if self.stem:
            found.append(Dimension(STEM, *self.multipliers, blocks=(STEM,)))
        return found

    def _recipe_dimension(self, name: str) -> Dimension:
        if name == "normalization":
            choices = (self.start.variant, *(variant for variant in VARIANTS if variant != self.start.variant))
            return Dimension(name, default=self.start.variant, choices=choices)
        own = self.start.dropout[0] if name == "dropout" else getattr(self.recipe, name)
        if name in FACTORS:
            if own == 0:
                raise UserError(f"Expected a recipe with {name} above zero, to search around it; Received: {name}=0.")
            low, high = (own * factor for factor in FACTORS[name])
            return Dimension(name, low, high, own, "log")
        if name == "aux_weight" and not self.start.has_aux:
            raise UserError("Expected auxiliary heads, to search their weight; Received: a network without them.")
        low, high = RANGES[name]
        return Dimension(name, low, max(high, own), own, "linear")

    def _widths(self, values: Values) -> dict[str, Widths]:
        """Widths of every block; arrays where the values are."""
        rows = {block: row._asdict() for block, row in self.start.block_widths().items()}
        for d in self.dimensions:
            places = [(block, field) for block in d.blocks for field in d.convolutions]
            if not places:  # a dimension of the recipe or of the stem sets no widths of blocks
                continue
            own = [rows[block][field] for block, field in places]
            value = values[d.name]
            chosen = [value] * len(own) if d.spread == "widths" else self._multiplied(own, value)
            for (block, field), width in zip(places, chosen, strict=True):
                rows[block][field] = width
        return {block: Widths(**row) for block, row in rows.items()}

    def _stem_widths(self, values: Values) -> tuple[Any, ...]:
        """Widths of the stem's convolutions; arrays where the values are."""
        own = self.start.all_stem_widths()
        return tuple(self._multiplied(own, values[STEM])) if self.stem else own

    def _multiplied(self, own: Sequence[int], factor: Any) -> np.ndarray:
        """Widths under a multiplier, one row for each width, between those under the smallest and the largest one:
        rounding alone could leave these bounds, since the factor 1 keeps a width that is no multiple of 8."""
        column = np.reshape(own, (-1, *(1,) * np.ndim(factor)))
        low, high = (_multiplied(column, bound) for bound in self.multipliers)
        return np.clip(_multiplied(column, factor), low, high)

    def _extreme(self, bound: Literal["low", "high"]) -> dict[str, Value]:
        return {d.name: getattr(d, bound) if d.blocks else d.default for d in self.dimensions}

    def _network(self, values: Values, widths: Mapping[str, Widths] | None) -> Spec:
        fields = {**self.start.to_dict(), "widths": widths}
        if self.stem and widths:
            fields["stem_widths"] = tuple(int(width) for width in self._stem_widths(values))
        if (variant := values.get("normalization", self.start.variant)) != self.start.variant:
            fields |= {"variant": str(variant), "pixels": self.recipe.pixels, "lrn": None}
        if "dropout" in values:
            fields["dropout"] = (float(values["dropout"]), self.start.dropout[1])
        return Spec(**fields)

    def costs(self, values: Values) -> Costs:
        """What the networks of samples, passed as arrays, cost."""
        kinds = values.get("normalization", np.full(len(next(iter(values.values()))), self.start.variant))
        params, macs = np.zeros(len(kinds), "int64"), np.zeros(len(kinds), "int64")
        for variant in np.unique(kinds):
            those = kinds == variant
            chosen = {name: column[those] for name, column in values.items()}
            spec = self._network({"normalization": variant}, None)
            params[those], macs[those] = classifier_cost(spec, self._widths(chosen), self._stem_widths(chosen))
        seconds = self.latency.seconds(self.start, self._widths(values)) if self.latency else np.zeros(len(kinds))
        return Costs(params, macs, seconds)

    def _below(self, costs: Costs) -> np.ndarray:
        """Whether a sample keeps the upper bounds."""
        budget = self.budget
        fits = (costs.params <= (budget.max_params or np.inf)) & (costs.macs <= (budget.max_macs or np.inf))
        return fits & (1000 * costs.seconds <= (budget.max_latency_ms or np.inf))

    def _keeps(self, costs: Costs) -> np.ndarray:
        tolerance, wanted = self.budget.keep_macs, self.reference[1]
        most = np.inf if tolerance is None else tolerance * wanted
        return self._below(costs) & (abs(costs.macs - wanted) <= most)

    def _affordable(self, costs: Costs) -> np.ndarray:
        """Whether a scaled sample costs no more than it should; where the cost is to be kept, than the start does."""
        most = self.reference[1] if self.budget.keep_macs is not None else np.inf
        return self._below(costs) & (costs.macs <= most)

    def _scaled(self, values: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Samples in the budget, by the largest common factor that they can afford, and which of them got there."""
        fine = self._keeps(self.costs(values))
        if fine.all():
            return values, fine
        low, length = np.full(len(fine), -float(OCTAVES)), 2.0 * OCTAVES
        at_once = 4 if len(fine) <= FEW else 1
        for _ in range(HALVINGS // at_once):
            length /= 2**at_once
            inside = low + length * np.arange(1, 2**at_once)[:, None]  # every middle that a halving may ask for
            repeated = {name: np.tile(column, len(inside)) for name, column in values.items()}
            costs = self.costs(self._times(repeated, 2.0 ** inside.ravel()))
            can, place = self._affordable(costs).reshape(inside.shape), np.zeros(len(fine), "int64")
            for half in 2 ** np.arange(at_once)[::-1]:
                place += half * can[place + half - 1, np.arange(len(fine))]
            low += length * place
        scaled = self._times(values, np.where(fine, 1.0, 2.0**low))
        scaled = {name: np.where(fine, values[name], column) for name, column in scaled.items()}
        return scaled, self._keeps(self.costs(scaled))

    def _times(self, values: dict[str, np.ndarray], factor: np.ndarray) -> dict[str, np.ndarray]:
        """The samples with all their widths scaled, inside the bounds; on the grid of one that has one."""
        scaled = dict(values)
        for d in self.dimensions:
            if d.blocks:
                scaled[d.name] = d.round(values[d.name] * factor)
        return scaled

    def _check_latency(self) -> None:
        if self.latency is None:
            if self.budget.max_latency_ms is not None:
                raise UserError(
                    "Expected a latency table with a budget of milliseconds; Received: "
                    f"max_latency_ms={self.budget.max_latency_ms:g} without one."
                )
            return
        self.latency.check_network(self.start)
        if self.stem or self.multipliers[0] < MULTIPLIERS[0] or self.multipliers[1] > MULTIPLIERS[1]:
            raise UserError(
                f"Expected multipliers from {MULTIPLIERS[0]} to {MULTIPLIERS[1]}, and none of the stem, with a latency "
                f"table, which was measured for these; Received: multipliers={self.multipliers}, stem={self.stem}."
            )
        if "normalization" in self.also:
            raise UserError(
                "Expected no 'normalization' among the dimensions with a latency table, which holds one family; "
                f"Received: also={self.also}."
            )

    def _check_reachable(self) -> None:
        if self.budget == Budget():
            return
        smallest = self._extreme("low")
        if (self.first() and (self.grid or self.sample(REDRAWS, 0))) or (self.grid and self.keeps(smallest)):
            return
        asked = ", ".join(f"{k}={v:g}" for k, v in dataclasses.asdict(self.budget).items() if v is not None)
        raise UserError(
            f"Expected a budget that space {self.name!r} can meet: its smallest network has {self._sizes(smallest)}, "
            f"that of the start {self._sizes(self.default())}; Received: {asked}."
        )

    def _sizes(self, values: Values) -> str:
        """The costs of a sample in words."""
        (params, macs), seconds = self.cost(values), self.seconds(values)
        counts = f"{params:,} parameters and {macs:,} multiply-accumulates"
        return counts if seconds is None else f"{counts} and takes {1000 * seconds:.3g} ms"


def _multiplied(own: Any, factor: Any) -> Any:
    """Widths under a multiplier, rounded to a multiple of 8 but for the factor 1, which keeps the published number."""
    return np.where(np.equal(factor, 1), own, _rounded(own * np.asarray(factor, "float64"))).astype("int64")


def _rounded(width: Any) -> np.ndarray:
    """`round_width` for arrays."""
    return np.maximum(8, np.floor(np.asarray(width, "float64") / 8 + 0.5).astype("int64") * 8)
