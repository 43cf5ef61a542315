"""How a log becomes requests and candidates: the part of a spec that the data core reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from gensr.registry import ComponentConfig, Registry

if TYPE_CHECKING:
    import numpy as np

    from gensr.data.candidates import FullRows
    from gensr.data.dataset import Dataset
    from gensr.data.times import TimeScale

Share = Annotated[float, Field(gt=0, lt=1)]
SHARES = ("valid", "test")


class SplitConfig(ComponentConfig):
    """Base of splits: which events train, validate and test.

    Twins of held-out events are taken out of training afterwards, whatever the split:
    `gensr.data.split.unused_twins`.
    """

    needs: ClassVar[str]
    """What it takes to hold something out, in one sentence, for the error where nothing is."""
    chronological: ClassVar[bool] = True
    """No request trains that is later than one held out: of its user and task, or, where `everywhere`, of any."""
    everywhere: ClassVar[bool] = False

    def assign(
        self,
        *,
        user: np.ndarray,
        item: np.ndarray,
        task: np.ndarray,
        time: np.ndarray,
        past: np.ndarray,
        given: np.ndarray | None,
        scale: TimeScale,
    ) -> np.ndarray:
        """`Split` codes int8 [E] of events sorted by user, time and order.

        Args:
            user: rows [E].
            item: rows [E].
            task: `Task` codes [E].
            time: int64 [E], what `scale` says.
            past: int64 [E] of `gensr.data.split.strict_past`: one number per user and moment.
            given: `Split` codes [E] that the log itself brings, if it does.
            scale: what the times count.

        Raises:
            BadInputError: the log lacks what the split needs.
        """
        raise NotImplementedError

    def boundaries(self, *, time: np.ndarray, scale: TimeScale) -> dict[str, str]:
        """In words, for the manifest: the times where a split of all users begins; empty where each has its own."""
        return {}


SPLITS = Registry("split", SplitConfig, builtins="gensr.data.config")


@SPLITS.register
class LeaveOneOutConfig(SplitConfig):
    """Per user and task: the last event tests, the one before validates, the rest trains."""

    type: Literal["leave_one_out"] = "leave_one_out"
    reference = "the usual protocol; Zhang et al., GenSR, 2025, for Amazon"
    needs: ClassVar[str] = (
        "Leave-one-out takes a user's last event of a task for test and the one before for validation, and trains on "
        "the rest, so users need three events of one task"
    )
    min_events: Annotated[int, Field(ge=3)] = 3
    """Events of a task from which on a user's last two are held out; users with fewer only train in it."""

    def assign(self, *, user: np.ndarray, task: np.ndarray, **_: object) -> np.ndarray:
        """See `SplitConfig.assign`."""
        from gensr.data.split import last_events

        return last_events(user, task, min_events=self.min_events)


class _CutOffs(SplitConfig):
    """Splits at two points in time, the same for all users."""

    everywhere: ClassVar[bool] = True

    def cut_offs(self, time: np.ndarray, scale: TimeScale) -> tuple[int, int]:
        """The times from which on events validate and test."""
        raise NotImplementedError

    def assign(self, *, time: np.ndarray, scale: TimeScale, **_: object) -> np.ndarray:
        """See `SplitConfig.assign`."""
        from gensr.data.split import from_cut_offs

        return from_cut_offs(time, *self.cut_offs(time, scale))

    def boundaries(self, *, time: np.ndarray, scale: TimeScale) -> dict[str, str]:
        """See `SplitConfig.boundaries`."""
        valid_from, test_from = self.cut_offs(time, scale)
        return {"valid_from": scale.describe(valid_from), "test_from": scale.describe(test_from)}


@SPLITS.register
class ByDayConfig(_CutOffs):
    """The last day tests, the day before validates, earlier days train."""

    type: Literal["by_day"] = "by_day"
    reference = "Shi et al., UniSAR, SIGIR 2024, for KuaiSAR; also Zhang et al., GenSR, 2025"
    needs: ClassVar[str] = "The log must span more days than the ones that are held out"
    day: Literal["calendar", "rolling24h"] = "calendar"
    """`calendar`: from midnight to midnight in the source's time zone; the last day is as short as the log leaves it.
    `rolling24h`: 24 hours counted back from the last event. Papers rarely say which."""
    test_days: PositiveInt = 1
    """Last days, which test."""
    valid_days: PositiveInt = 1
    """Days before them, which validate."""

    def cut_offs(self, time: np.ndarray, scale: TimeScale) -> tuple[int, int]:
        """See `_CutOffs.cut_offs`."""
        from gensr.data.split import day_cut_offs

        rolling = self.day == "rolling24h"
        return day_cut_offs(time, scale, rolling=rolling, valid_days=self.valid_days, test_days=self.test_days)

    def boundaries(self, *, time: np.ndarray, scale: TimeScale) -> dict[str, str]:
        """See `SplitConfig.boundaries`."""
        return {"day": self.day, **super().boundaries(time=time, scale=scale)}


@SPLITS.register
class ByTimeConfig(_CutOffs):
    """Two points in time: later events test, those between validate, earlier ones train."""

    type: Literal["by_time"] = "by_time"
    reference = "global temporal split; Meng et al., RecSys 2020"
    needs: ClassVar[str] = "The cut-offs must lie within the times of the log"
    valid_from: str | int | None = None
    """First time that validates: a number in the log's unit, or an ISO 8601 date or time, of the source's time zone
    unless it names an offset. Together with `test_from`, instead of the shares."""
    test_from: str | int | None = None
    """First time that tests."""
    valid: Share = 0.1
    """Share of all events that validate, the newest but those that test. Events of one time stay together, on the
    earlier side of a boundary."""
    test: Share = 0.1
    """Share of all events that test, the newest."""

    @model_validator(mode="after")
    def _one_way(self) -> ByTimeConfig:
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("valid_from and test_from are given together or not at all")
        fields = type(self).model_fields
        if self.valid_from is not None and any(getattr(self, name) != fields[name].default for name in SHARES):
            raise ValueError("cut-offs are given as valid_from and test_from or as shares, not both")
        _require_training(self.valid, self.test)
        return self

    def cut_offs(self, time: np.ndarray, scale: TimeScale) -> tuple[int, int]:
        """See `_CutOffs.cut_offs`."""
        from gensr.data.split import instant, share_cut_offs
        from gensr.errors import BadInputError

        if self.valid_from is None or self.test_from is None:
            return share_cut_offs(time, valid=self.valid, test=self.test)
        valid_from = instant(self.valid_from, scale, "data.split.valid_from")
        test_from = instant(self.test_from, scale, "data.split.test_from")
        if valid_from > test_from:
            raise BadInputError(
                f"data.split: valid_from {self.valid_from!r} is later than test_from {self.test_from!r}; validation "
                "comes before test"
            )
        return valid_from, test_from


@SPLITS.register
class RatioConfig(SplitConfig):
    """Per user and task: the last events test, those before validate, by shares of the user's events."""

    type: Literal["ratio"] = "ratio"
    reference = "ratio-based split grouped by user, as in RecBole; Zhao et al., CIKM 2021"
    needs: ClassVar[str] = "A share of a user's events must come to at least half an event, so raise the shares"
    valid: Share = 0.1
    """Share of a user's events of a task that validate; rounded to the nearest, halves up."""
    test: Share = 0.1
    """Share that tests. At least one event stays for training. Events that do not see each other stay together, on the
    earlier side of a boundary."""

    @model_validator(mode="after")
    def _some_train(self) -> RatioConfig:
        _require_training(self.valid, self.test)
        return self

    def assign(self, *, user: np.ndarray, task: np.ndarray, past: np.ndarray, **_: object) -> np.ndarray:
        """See `SplitConfig.assign`."""
        from gensr.data.split import last_shares

        return last_shares(user, task, past, valid=self.valid, test=self.test)


def _require_training(valid: float, test: float) -> None:
    if valid + test >= 1:
        raise ValueError(f"valid {valid} and test {test} leave nothing for training: their sum must be below 1")


@SPLITS.register
class GivenConfig(SplitConfig):
    """The split that the log brings; where nothing of it validates, a share of the training interactions does."""

    type: Literal["given"] = "given"
    reference = "released splits, such as Ai et al., SIGIR 2017"
    needs: ClassVar[str] = "The log's own split holds out no event"
    chronological: ClassVar[bool] = False
    valid_share: Share = 0.1
    """Share of the training interactions, drawn by `seed`, that validate where the log itself names none."""
    seed: NonNegativeInt = 42
    """Draws them."""

    def assign(self, *, item: np.ndarray, past: np.ndarray, given: np.ndarray | None = None, **_: object) -> np.ndarray:
        """See `SplitConfig.assign`."""
        from gensr.data.split import Split, draw_validation
        from gensr.errors import BadInputError

        if given is None:
            others = [name for name in SPLITS.names() if name != self.type]
            raise BadInputError(
                "data.split 'given': this log does not come divided into train, valid and test. Splits that make their "
                f"own: {', '.join(others)}"
            )
        if (given == Split.VALID).any():
            return given.astype("int8")
        return draw_validation(given, past, item, share=self.valid_share, seed=self.seed)


class CandidatesConfig(ComponentConfig):
    """Base of candidate recipes: which items compete with the truth of a held-out request.

    No recipe takes an item that the user touched, in either task and any split.
    """

    seeded: ClassVar[bool] = True
    """Another seed gives another list."""

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> np.ndarray | FullRows:
        """Candidates of the requests at `events` [R] -> int32 [R, C], the truth among them, in shuffled order."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """Name of the list in tables and files."""
        raise NotImplementedError


CANDIDATES = Registry("candidates", CandidatesConfig, builtins="gensr.data.config")


class _Counted(CandidatesConfig):
    """Recipes that take a number of negatives."""

    count: PositiveInt = 99
    """Negatives beside the truth."""

    @property
    def name(self) -> str:
        """See `CandidatesConfig.name`."""
        return f"{self.type}-{self.count}"


@CANDIDATES.register
class UniformConfig(_Counted):
    """Uniform over the items the user never touched, in either task and any split; drawn without replacement."""

    type: Literal["uniform"] = "uniform"
    reference = "99 random negatives; Zhang et al., GenSR, 2025"

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> np.ndarray:
        """See `CandidatesConfig.draw`."""
        from gensr.data.recipes import draw_uniform

        return draw_uniform(dataset, events, count=self.count, seed=seed)


@CANDIDATES.register
class PopularCandidatesConfig(_Counted):
    """Drawn from the training interactions of both tasks: by popularity, without replacement.

    Where a user touched so much of what is ever trained on that it does not suffice, the rest is uniform over the
    other items. The truth tends to be the least popular of its list, so a popularity ranker falls below chance.
    """

    type: Literal["popularity"] = "popularity"
    reference = "Shi et al., GenSAR, 2025, released code: recommendation negatives drawn from the interactions"

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> np.ndarray:
        """See `CandidatesConfig.draw`."""
        from gensr.data.recipes import draw_popular

        return draw_popular(dataset, events, count=self.count, seed=seed)


@CANDIDATES.register
class SameCategoryConfig(_Counted):
    """Items of the truth's own category, so that the text of a category query tells nothing.

    The category is the hierarchy of the truth that the query was made from, else its first one. Where too few items
    are left in it, all of them are taken and the rest is drawn from the category above, and so on up to the whole
    catalogue.
    """

    type: Literal["same_category"] = "same_category"

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> np.ndarray:
        """See `CandidatesConfig.draw`."""
        from gensr.data.recipes import draw_same_category

        return draw_same_category(dataset, events, count=self.count, seed=seed)


@CANDIDATES.register
class BM25CandidatesConfig(_Counted):
    """The first BM25 hits for the query (for recommendation: for the truth's own text); the rest uniform.

    Ties come in an order drawn once; items that share no word with the query are no hits. Unfair to BM25 itself by
    construction: for learned models. Every distinct query is scored against the whole catalogue: minutes to hours
    where there are millions of items.
    """

    type: Literal["bm25"] = "bm25"
    reference = "Shi et al., GenSAR, 2025, released code: search negatives"
    k1: float = Field(1.5, gt=0)
    """Saturation of term counts."""
    b: float = Field(0.75, ge=0, le=1)
    """Length normalisation."""

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> np.ndarray:
        """See `CandidatesConfig.draw`."""
        from gensr.data.recipes import draw_bm25

        return draw_bm25(dataset, events, count=self.count, seed=seed, k1=self.k1, b=self.b)


@CANDIDATES.register
class FullConfig(CandidatesConfig):
    """The whole catalogue less what the user touched: exact, and as slow as the catalogue is large.

    Rows are made when they are asked for, in catalogue order; nothing is stored.
    """

    type: Literal["full"] = "full"
    reference = "unsampled metrics; Krichene, Rendle, KDD 2020"
    seeded: ClassVar[bool] = False

    def draw(self, dataset: Dataset, events: np.ndarray, *, seed: int) -> FullRows:
        """See `CandidatesConfig.draw`."""
        from gensr.data.candidates import FullRows

        return FullRows(dataset, events)

    @property
    def name(self) -> str:
        """See `CandidatesConfig.name`."""
        return "full"
