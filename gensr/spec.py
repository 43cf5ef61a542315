"""The spec: everything that defines a run, as one validated, frozen value."""

from __future__ import annotations

import hashlib
import json
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import to_jsonable_python

from gensr.data.config import CANDIDATES, SPLITS, CandidatesConfig, LeaveOneOutConfig, SplitConfig, UniformConfig
from gensr.data.sources.config import SOURCES, SourceConfig
from gensr.data.tasks import parse_task
from gensr.device import Precision
from gensr.encoders.cf.config import LightGCNConfig
from gensr.errors import BadInputError, did_you_mean
from gensr.evaluation.names import parse_metric
from gensr.rankers.config import (
    RANKERS,
    CFRankerConfig,
    GenSRConfig,
    InHistoryConfig,
    LexicalConfig,
    PopularityConfig,
    QueryPopularityConfig,
    RandomConfig,
    RankerConfig,
)
from gensr.registry import ComponentConfig, Section
from gensr.spec_file import read_spec
from gensr.training.schedule import Schedule

ItemField = Literal["title", "categories"]
Candidates = Annotated[CandidatesConfig, CANDIDATES]
T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise ValueError("expected at least one")
    twice = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if twice:
        raise ValueError(f"given more than once: {', '.join(map(str, twice))}")
    return values


def _known_metric(name: str) -> str:
    try:
        parse_metric(name)
    except BadInputError as error:
        raise ValueError(str(error)) from None
    return name


# Checked once the members are right: a length constraint would count a wrong member as a missing one.
Distinct = AfterValidator(_distinct)


class CoreSpec(Section):
    """Which users and items are frequent enough; counted over both tasks, again and again until nothing changes."""

    users: NonNegativeInt = 0
    """Least events of a user."""
    items: NonNegativeInt = 0
    """Least events of an item; 0 also keeps catalogue items without any."""
    both_tasks: bool = False
    """Keep only users with events of both tasks."""


class DataSpec(Section):
    """Which log, and how it becomes requests and candidates."""

    source: Annotated[SourceConfig, SOURCES] = Field(default_factory=lambda: SOURCES.parse("demo"))
    """Where the log comes from."""
    item_text: Annotated[tuple[ItemField, ...], Distinct] = ("title", "categories")
    """Fields that make an item's text, in order."""
    core: CoreSpec = CoreSpec()
    """Leave rare users and items out; a number k stands for `{"users": k, "items": k}`."""
    users: PositiveInt | None = None
    """Keep this many users of the core, drawn with `seed`; all where absent."""
    seed: NonNegativeInt = 42
    """Draws users and candidate lists; apart from the run's seed, so that a study's seeds share their candidates."""
    max_history: PositiveInt = 20
    """Newest events of a user that a request sees, both tasks together."""
    split: Annotated[SplitConfig, SPLITS] = LeaveOneOutConfig()
    """Which events train, validate and test."""
    train_negatives: PositiveInt = 4
    """Uniform negatives beside each training positive, drawn anew every epoch, for rankers without an option
    `negatives` of their own."""
    candidates: tuple[Candidates, ...] = (UniformConfig(),)
    """Candidate lists; the first selects models, all are reported. A `uniform` one is added where there is none, so
    that every study has numbers that compare with others'."""

    @field_validator("item_text", mode="before", json_schema_input_type=ItemField | tuple[ItemField, ...])
    @classmethod
    def _one_field(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("core", mode="before", json_schema_input_type=NonNegativeInt | CoreSpec)
    @classmethod
    def _one_core(cls, value: Any) -> Any:
        is_number = isinstance(value, int) and not isinstance(value, bool)
        return {"users": value, "items": value} if is_number else value

    @field_validator("candidates", mode="before", json_schema_input_type=Candidates | tuple[Candidates, ...])
    @classmethod
    def _one_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | dict | CandidatesConfig) else value

    @field_validator("candidates")
    @classmethod
    def _distinct_lists(cls, value: tuple[CandidatesConfig, ...]) -> tuple[CandidatesConfig, ...]:
        _distinct(tuple(config.name for config in value))
        return value if any(config.type == "uniform" for config in value) else (*value, UniformConfig())


class TrainingSpec(Section):
    """How a ranker is trained. Steps count optimiser updates; a batch holds requests, each with its candidates."""

    epochs: PositiveInt = 10
    """Most passes over the training requests."""
    max_steps: PositiveInt | None = None
    """Stop after this many updates, whatever the epoch."""
    batch_size: PositiveInt | Literal["auto"] = 128
    """Requests per update; each scores one positive and its negatives. `auto` is the largest power of two up to 512
    that, by estimate, needs at most half of the free memory; the manifest says which."""
    learning_rate: PositiveFloat = 1e-3
    """Peak step size."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """Whether weight decay is taken from the weights (AdamW), or added to the gradients as L2 (Adam), as older papers
    do. Without decay they are the same."""
    weight_decay: NonNegativeFloat = 1e-3
    """Decay of tensors with two or more dimensions."""
    fresh_negatives: bool = True
    """Draw new negatives every epoch. Off: a request keeps the ones of its first, as in the released code."""
    schedule: Schedule = "linear"
    """How the step size falls after the warm-up; `plateau`: to a tenth (to 1e-6 at least) when `plateau_patience`
    validations and one more in a row were not better than the best."""
    plateau_patience: NonNegativeInt = 3
    """Validations without a better one that the schedule `plateau` bears."""
    warmup_steps: NonNegativeInt = 200
    """Updates in which the step size rises from 0."""
    clip_norm: PositiveFloat | None = 1.0
    """Largest global gradient norm; null: gradients are not clipped."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass; weights stay float32."""
    compile: bool = False
    """Compile the backbone's blocks with torch.compile; where that fails, a message, and training goes on without."""
    gradient_checkpointing: bool = False
    """Recompute the blocks' activations in the backward pass instead of keeping them: less memory, more time."""
    evaluate_every: PositiveInt | None = None
    """Updates between validations; one epoch where absent."""
    selection: Annotated[str, AfterValidator(_known_metric)] = "ndcg@5"
    """Metric that says which validation is the best: its mean over the tasks that the ranker does."""
    patience: NonNegativeInt = 3
    """Validations without a better one before training stops; 0 = never."""
    validation_requests: PositiveInt | None = 2000
    """Validation requests per task, drawn once with the data seed; all where null."""
    checkpoint_every: PositiveInt | None = None
    """Updates between checkpoints, beside those at validations."""
    log_every: PositiveInt = 20
    """Updates between lines of the training curve."""

    @field_validator("batch_size", mode="wrap")
    @classmethod
    def _number_or_auto(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            return check(value)
        except ValidationError:  # one problem, not one for each of the two kinds
            hint = did_you_mean(value, ["auto"]) if isinstance(value, str) else ""
            raise ValueError(f'expected a positive number of requests, or "auto"{hint}') from None


def _floors() -> tuple[RankerConfig, ...]:
    return (
        RandomConfig(),
        PopularityConfig(),
        LexicalConfig(),
        QueryPopularityConfig(),
        CFRankerConfig(),
        CFRankerConfig(cf=LightGCNConfig()),
        InHistoryConfig(),
    )


class EvaluationSpec(Section):
    """What is measured, and how."""

    metrics: Annotated[tuple[str, ...], Distinct] = ("recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr")
    """`recall@k`, `ndcg@k`, `mrr`."""
    tasks: Annotated[tuple[str, ...], Distinct] = ("search", "recommendation")
    """Tasks to report."""
    ties: Literal["expected", "optimistic", "pessimistic"] = "expected"
    """Where the truth stands among equal scores."""
    floors: tuple[Annotated[RankerConfig, RANKERS], ...] = Field(default_factory=_floors)
    """Rankers reported beside the trained one."""
    ablations: bool = True
    """Also report search with shuffled and with empty queries, and recommendation with empty histories."""
    bootstrap: NonNegativeInt = 1000
    """Resamples of the requests for confidence intervals; 0 = none."""
    batch_size: PositiveInt = 64
    """Requests scored at once."""
    max_requests: PositiveInt | None = None
    """Test requests per task, drawn once with the data seed; all where absent."""
    precision: Precision = "fp32"
    """Arithmetic of the trained ranker on the test requests; validations are in fp32. `bf16` is faster where the
    processor has it; close candidates may change places."""

    @field_validator("floors")
    @classmethod
    def _untrained(cls, value: tuple[RankerConfig, ...]) -> tuple[RankerConfig, ...]:
        for floor in value:
            if type(floor).trainable:
                raise ValueError(
                    f"{floor.type!r} must be trained, and floors are measured as they are built; build it as a run of "
                    "its own, with this spec's data section, and compare the two reports"
                )
        return value

    @field_validator("metrics", "tasks", mode="before", json_schema_input_type=str | tuple[str, ...])
    @classmethod
    def _one_name(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            _known_metric(name)
        return value

    @field_validator("tasks")
    @classmethod
    def _known_tasks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return _distinct(tuple(parse_task(name).label for name in value))
        except BadInputError as error:
            raise ValueError(str(error)) from None


def _file_keys(schema: dict[str, Any]) -> None:
    """Tell editors about the keys that a spec file may have and `read_spec` takes away."""
    schema["properties"]["extends"] = {"type": "string", "description": 'Spec file or "preset:NAME" to start from.'}
    schema["properties"]["$schema"] = {"type": "string"}


class PipelineSpec(Section):
    """A complete run: data, ranker, training, evaluation."""

    model_config = ConfigDict(json_schema_extra=_file_keys)

    version: Literal[1] = 1
    """Version of the spec format."""
    name: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "gensr"
    """Names the run's folder."""
    seed: NonNegativeInt = 42
    """Initial weights, order of training requests, training negatives, dropout."""
    data: DataSpec = Field(default_factory=DataSpec)
    ranker: Annotated[RankerConfig, RANKERS] = Field(default_factory=GenSRConfig)
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec)

    @model_validator(mode="before")
    @classmethod
    def _own_training(cls, value: Any) -> Any:
        """Fill in what the ranker says of its training, and the spec does not."""
        if not isinstance(value, dict):
            return value
        own, given = own_training(value.get("ranker")), value.get("training", {})
        if isinstance(given, TrainingSpec):
            given = given.model_dump(exclude_unset=True)
        return {**value, "training": {**own, **given}} if own and isinstance(given, dict) else value

    @model_validator(mode="after")
    def _precision(self) -> PipelineSpec:
        try:
            self.ranker.check_precision(self.training.precision)
        except ValueError as error:
            raise ValueError(f"training.precision: {error}") from None
        try:
            self.ranker.check_scoring(self.evaluation.precision)
        except ValueError as error:
            raise ValueError(f"evaluation.precision: {error}") from None
        return self

    def fingerprint(self) -> str:
        """Hash of everything but names: see `fingerprint`."""
        return fingerprint(self.model_copy(update={"name": "gensr"}))

    def to_json(self) -> str:
        """The filled spec as indented JSON; reading it gives an equal spec."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def own_training(ranker: Any) -> dict[str, Any]:
    """The training options that a ranker of a spec, given as a name, a mapping or a config, brings along.

    Empty where there is no such ranker: what is wrong with it is said where it is read.
    """
    if ranker is None:
        ranker = GenSRConfig()
    if isinstance(ranker, RankerConfig):
        return dict(type(ranker).training)
    name = ranker.get("type") if isinstance(ranker, dict) else ranker
    try:
        return dict(RANKERS.get(name).training) if isinstance(name, str) else {}
    except BadInputError:
        return {}


def fingerprint(value: Any) -> str:
    """Hash a config: its non-default values, component types and `revision`s, as 64 hexadecimal digits.

    Options left at their default do not count, so adding an option with a default leaves old fingerprints alone.
    """
    text = json.dumps(_essence(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _essence(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_essence(item) for item in value]
    if not isinstance(value, Section):
        return to_jsonable_python(value)
    essence: dict[str, Any] = {}
    if isinstance(value, ComponentConfig):
        essence = {"type": value.type, "revision": value.revision}
    elif value.revision > 1:
        essence = {"revision": value.revision}
    for name, field in type(value).model_fields.items():
        item = getattr(value, name)
        default = field.get_default(call_default_factory=True, validated_data={})
        inner = _essence(item)
        # Sections and components count even where they are the default: their revision may rise.
        if name != "type" and (item != default or (_has_sections(item) and inner != {})):
            essence[name] = inner
    return essence


def _has_sections(value: Any) -> bool:
    return any(isinstance(item, Section) for item in (value if isinstance(value, tuple | list) else (value,)))


def load_spec(source: str | Path | dict[str, Any] | PipelineSpec) -> PipelineSpec:
    """Read a spec from a file (.json, .yaml, .toml), a preset (``"preset:demo"``) or a mapping.

    Raises:
        BadInputError: names every problem of the spec at once, each with its path.
    """
    if isinstance(source, PipelineSpec):
        return source
    return validate(read_spec(source), origin=source if isinstance(source, str | Path) else "spec")


def validate(data: dict[str, Any], *, origin: str | Path = "spec") -> PipelineSpec:
    """Check a mapping and fill it in; errors as in `load_spec`."""
    try:
        return PipelineSpec.model_validate(data)
    except ValidationError as error:
        lines = []
        for line in error.errors():
            path = ".".join(str(part) for part in line["loc"])
            message, given = line["msg"].removeprefix("Value error, "), reprlib.repr(line["input"])
            told = (given if isinstance(line["input"], str) else f"got {given}") in message
            if not (told or line["type"] == "unknown_option" or isinstance(line["input"], dict | BaseModel)):
                message += f" (got {given})"
            lines.append(f"  {path}: {message}" if path else f"  {message}")
        count = f"{len(lines)} problems" if len(lines) > 1 else "1 problem"
        raise BadInputError(f"{origin} has {count}:\n" + "\n".join(lines)) from None
