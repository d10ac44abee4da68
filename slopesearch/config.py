"""The nouns that travel: StudySpec, TrialConfig, Report, TrialResult; frozen, checked, from TOML, to JSON."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

SlopeMode = Literal["fixed", "learnable"]
SlopeClamp = Literal["project", "forward"]
Norm = Literal["none", "before", "after"]
Precision = Literal["float32", "bf16"]
Objective = Literal["val_accuracy", "val_loss"]
Ended = Literal["completed", "pruned", "diverged"]
EvaluatedOn = Literal["validation", "rest", "test"]
OutputGain = Literal["one", "hidden"]
Plan = Literal["cover", "walk"]

REPORTS = 9  # of a run; steps 1 to 9, so that successive halving by 3 has its rungs at 1, 3 and 9
QUICK_VALIDATION = 1000  # images for all reports but the last: 5,000 cost 30 % of an epoch


class Noun(BaseModel):
    """What every noun is: frozen, strict in types, closed to unknown fields, and finite in its numbers.

    Not-a-number would not survive JSON, and compares unequal to itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Range(Noun):
    """An interval to search, both ends included; `log` searches the exponent evenly."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_upright(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low must be below high, given low = {self.low} and high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log range needs low above 0, given low = {self.low}")
        return self


def _as_choices(value: object) -> object:
    if isinstance(value, list):
        return tuple(value)
    return (value,) if isinstance(value, (str, int, float)) else value


def _range_or_choices(value: object) -> str:
    return "range" if isinstance(value, (dict, Range)) else "choices"


Names = Annotated[tuple[str, ...], BeforeValidator(_as_choices), Field(min_length=1)]
Numbers = Annotated[
    Annotated[Range, Tag("range")]
    | Annotated[tuple[float, ...], BeforeValidator(_as_choices), Field(min_length=1), Tag("choices")],
    Discriminator(_range_or_choices),
]
SlopeModes = Annotated[tuple[SlopeMode, ...], BeforeValidator(_as_choices), Field(min_length=1)]
Norms = Annotated[tuple[Norm, ...], BeforeValidator(_as_choices), Field(min_length=1)]


class Space(Noun):
    """What is searched. A list is a choice, a table a range, and a single value fixes the parameter.

    `activation` and `init` left out mean every one that is registered.
    """

    activation: Names | None = None
    slope_mode: SlopeModes = get_args(SlopeMode)
    negative_slope: Numbers = Range(low=1e-3, high=0.5, log=True)
    slope_max: Numbers = (0.1, 0.3, 1.0)
    norm: Norms = get_args(Norm)
    init: Names | None = None
    lr: Numbers = Range(low=1e-4, high=3e-2, log=True)

    @field_validator("activation", "slope_mode", "negative_slope", "slope_max", "norm", "init", "lr")
    @classmethod
    def _lists_nothing_twice(cls, axis: object) -> object:
        if isinstance(axis, tuple) and len(set(axis)) < len(axis):
            raise ValueError("lists a value twice")
        return axis

    @field_validator("negative_slope", "slope_max")
    @classmethod
    def _is_a_slope(cls, axis: Range | tuple[float, ...]) -> Range | tuple[float, ...]:
        outside = [value for value in values_of(axis) if not 0 <= value <= 1]
        if outside:
            raise ValueError(f"a slope lies in [0, 1], given {outside[0]}")
        return axis

    @field_validator("lr")
    @classmethod
    def _is_positive(cls, axis: Range | tuple[float, ...]) -> Range | tuple[float, ...]:
        if min(values_of(axis)) <= 0:
            raise ValueError(f"a learning rate is above 0, given {min(values_of(axis))}")
        return axis


def values_of(axis: Range | tuple[float, ...]) -> tuple[float, ...]:
    """The numbers that a searched axis names: both ends of a range, or every choice."""
    return (axis.low, axis.high) if isinstance(axis, Range) else axis


class StudySpec(Noun):
    """What is asked. Fields left at None take the data set's, the model's or the machine's default.

    Sizes are counts of images, `warmup` is a share of all steps, `seed` drives the sampler, the init and
    the batch order; the split depends on `split_seed` alone. `output_gain`: what a matched init scales the
    output layer by, 1 as in theory, or the hidden layers' gain as version 0.1.0 did. `plan`: what comes after
    the textbook's recipes, see `search.cover`; "walk" is version 0.1.0's.
    """

    dataset: str = "auto"
    model: str = "cnn"
    depth: int | None = Field(None, ge=1, le=1000)
    width: int | None = Field(None, ge=1, le=65536)
    epochs: int | None = Field(None, ge=1, le=10_000)
    train_size: int | None = Field(None, ge=1, le=10_000_000)
    val_size: int | None = Field(None, ge=1, le=10_000_000)
    batch_size: int = Field(128, ge=2, le=65536)  # BatchNorm has no variance to divide by at 1
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    slope_min: float = Field(1e-3, ge=0, le=1)
    slope_clamp: SlopeClamp = "project"
    output_gain: OutputGain = "one"
    precision: Precision | None = None
    objective: Objective = "val_accuracy"
    sampler: str = "tpe"
    pruner: str = "halving"
    plan: Plan = "cover"
    seed: int = Field(0, ge=0, lt=2**32)
    split_seed: int = Field(0, ge=0, lt=2**32)
    space: Space = Space()

    @property
    def maximize(self) -> bool:
        """Whether a larger objective is better."""
        return self.objective == "val_accuracy"


class ResolvedSpace(Space):
    """A space that names every choice it holds."""

    activation: Names
    init: Names


class ResolvedSpec(StudySpec):
    """A spec with no default left open, as a study stores it.

    `depth` and `width` are None for a model that takes none. `dataset` names a data set, never "auto".
    """

    epochs: int = Field(ge=1, le=10_000)
    train_size: int = Field(ge=1, le=10_000_000)
    val_size: int = Field(ge=1, le=10_000_000)
    precision: Precision
    # These defaults are for specs that were stored before the fields existed.
    output_gain: OutputGain = "hidden"
    plan: Plan = "walk"
    space: ResolvedSpace


class TrialConfig(Noun):
    """What one run trains, complete: every choice that reaches the network or its training, none left open.

    `negative_slope` is the start value of a learnable slope; the slope fields are None for activations
    that take none. A slope above `slope_max` starts at `slope_max`. A search evaluates on validation images
    alone, the first `val_size` of the held-out ones; `evaluated_on` "rest" takes the other held-out ones, on
    which arms are compared, and "test" is for the verdict at the end.
    """

    dataset: str
    split_seed: int = Field(ge=0, lt=2**32)
    train_size: int = Field(ge=1, le=10_000_000)
    val_size: int = Field(ge=0, le=10_000_000)
    evaluated_on: EvaluatedOn = "validation"  # the default is for what was stored before the field was
    batch_size: int = Field(ge=2, le=65536)
    epochs: int = Field(ge=1, le=10_000)
    model: str
    depth: int | None = Field(ge=1, le=1000)
    width: int | None = Field(ge=1, le=65536)
    order_seed: int = Field(ge=0, lt=2**32)
    precision: Precision
    warmup: float = Field(ge=0, lt=1)

    activation: str
    negative_slope: float | None = Field(ge=0, le=1)
    slope_mode: SlopeMode | None
    slope_min: float | None = Field(ge=0, le=1)
    slope_max: float | None = Field(ge=0, le=1)
    slope_clamp: SlopeClamp | None
    norm: Norm
    init: str
    output_gain: OutputGain = "hidden"  # the default is for configs stored before this field existed
    init_seed: int = Field(ge=0, lt=2**32)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)

    # What may differ between runs that are trained on the same batches, side by side.
    member_fields: ClassVar = frozenset(
        {"activation", "negative_slope", "slope_mode", "slope_min", "slope_max", "slope_clamp"}
        | {"norm", "init", "output_gain", "init_seed", "lr", "weight_decay"}
    )

    def pack_key(self) -> tuple[object, ...]:
        """What runs must share to be trained together: data, model, sizes, batch order, precision."""
        return tuple(value for name, value in self if name not in self.member_fields)


class Report(Noun):
    """One validation of a run. Losses in nats.

    Per layer: `slopes` holds the mean effective slope, `raw_slopes` that of the parameter behind it,
    `update_ratios` the size of the last step against that of the weights.
    """

    step: int = Field(ge=1, le=REPORTS)
    train_loss: float
    val_loss: float
    val_accuracy: float
    slopes: tuple[float, ...] = ()
    raw_slopes: tuple[float, ...] = ()
    update_ratios: tuple[float, ...] = ()
    diverged: bool = False


class Diagnostics(Noun):
    """What a network looks like inside when its run ends. A list has a number per hidden layer in `layers`.

    A unit is a neuron or a channel, z what goes into its activation phi; shares lie in [0, 1].
    `images`: how many validation images were looked at for dead units; the look ends early once no unit can
    be dead.
    `never_active`: the share of units with z <= 0 for every image, at every position.
    `zero_gradient`: the share with phi'(z) = 0 likewise, so that whatever the layers above send, nothing
    passes (Lu et al. 2020, "Dying ReLU and initialization"); it means the same for every activation, and
    for leaky ReLU it is 0 by construction. `dead_fraction` is this share of all units together.
    `inactive`: the mean share of z <= 0. `saturated`, of a bounded activation: the mean share of z whose
    phi'(z) is below 5 % of phi'(0) (Glorot and Bengio 2010, section 3).
    `gradient_rms`: the root mean square of d(loss of an image, in nats)/dz; `grad_attenuation`: the slope of
    its log10 over the layers, in decades per layer, above 0 where the gradient shrinks towards the input.
    `order`: of the network whose z these are. None is an earlier version's, which pooled before some of the
    activations and looked behind the pool: not comparable.
    """

    order: Literal["tutorial"] | None = None
    images: int
    layers: tuple[int, ...]
    never_active: tuple[float, ...]
    zero_gradient: tuple[float, ...]
    inactive: tuple[float, ...]
    saturated: tuple[float, ...] = ()
    gradient_rms: tuple[float, ...]
    dead_fraction: float
    grad_attenuation: float | None = None


class TrialResult(Noun):
    """What one run gave: its curve, why it ended, what it cost, and what the network looks like inside.

    `seconds` are those of the whole run; `images_per_second` is the rate of training, without validation.
    `arithmetic` is what goes into products: float32, tf32 or bf16. None is an earlier version's, which left
    it to torch: on a GPU its "float32" was tf32 in convolutions.
    """

    ended: Ended
    curve: tuple[Report, ...]
    seconds: float
    images_per_second: float
    device: str
    arithmetic: str | None = None
    diagnostics: Diagnostics | None = None

    @property
    def final(self) -> Report:
        """The last validation."""
        return self.curve[-1]
