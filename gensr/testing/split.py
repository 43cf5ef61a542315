"""What every split owes its users, as a pytest base class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gensr.data.config import SplitConfig
from gensr.data.split import HELD_OUT, Split, strict_past, unused_twins
from gensr.data.tasks import Task
from gensr.data.times import TimeScale

DAYS = 10
START = 1_600_000_000


@dataclass(frozen=True)
class Events:
    """Events as a split sees them, sorted by user and time: ties, twins, repeats, and users of all sizes."""

    user: np.ndarray
    item: np.ndarray
    task: np.ndarray
    time: np.ndarray
    past: np.ndarray
    given: np.ndarray
    scale: TimeScale

    @classmethod
    def random(cls, seed: int = 0, users: int = 40) -> Events:
        """Ten days of Unix seconds; every third recommendation has a search as its twin."""
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 30, users)
        user = np.repeat(np.arange(1, users + 1), sizes)
        time = START + 3600 * rng.integers(0, 24 * DAYS, len(user))
        item, task = rng.integers(1, 50, len(user)), rng.integers(1, 3, len(user)).astype(np.int8)
        twin = np.flatnonzero((task == Task.RECOMMENDATION) & (rng.random(len(user)) < 1 / 3))
        user, time, item = (np.concatenate([column, column[twin]]) for column in (user, time, item))
        task = np.concatenate([task, np.full(len(twin), Task.SEARCH, np.int8)])
        order = np.lexsort((time, user))
        user, time, item, task = user[order], time[order], item[order], task[order]
        given = np.where(rng.random(len(user)) < 0.1, Split.TEST, Split.TRAIN).astype(np.int8)
        return cls(user, item, task, time, strict_past(user, time)[1], given, TimeScale("s", "Asia/Shanghai"))

    def assigned(self, config: SplitConfig) -> np.ndarray:
        """Codes [E] that `config` gives."""
        return config.assign(**vars(self))


class SplitContract:
    """Derive from it, return your config from `config`, and pytest does the rest.

    Example:
        >>> class TestMySplit(SplitContract):
        ...     def config(self):
        ...         return MySplitConfig(share=0.2)
    """

    def config(self) -> SplitConfig:
        """The config under test."""
        raise NotImplementedError

    def test_every_event_trains_validates_or_tests(self) -> None:
        """int8 codes, one an event; which twins are unused is not the split's to say."""
        split = Events.random().assigned(self.config())
        assert split.dtype == np.int8
        assert split.shape == Events.random().user.shape
        assert set(split.tolist()) == {Split.TRAIN, *HELD_OUT}

    def test_equal_logs_are_split_equally(self) -> None:
        """And the arrays that come in are left as they were."""
        events, untouched = Events.random(), Events.random()
        assert np.array_equal(events.assigned(self.config()), events.assigned(self.config()))
        assert all(np.array_equal(getattr(events, name), getattr(untouched, name)) for name in ("time", "given"))

    def test_no_twin_of_a_held_out_event_trains(self) -> None:
        """Once the rule for twins is applied, as it is after every split."""
        events = Events.random()
        split = unused_twins(events.assigned(self.config()), events.past, events.item)
        faces = np.stack([events.past, events.item], axis=1)
        trained = {tuple(face) for face in faces[split == Split.TRAIN].tolist()}
        assert not trained & {tuple(face) for face in faces[np.isin(split, HELD_OUT)].tolist()}

    def test_nothing_trains_that_is_later_than_what_is_held_out(self) -> None:
        """Of the same user and task, or of any; for splits that go by time."""
        config, events = self.config(), Events.random()
        split = events.assigned(config)
        if not config.chronological:
            return
        groups = [0] if config.everywhere else np.unique(3 * events.user + events.task)
        of = np.zeros(len(split), int) if config.everywhere else 3 * events.user + events.task
        for group in groups:
            train, valid, test = (events.time[(of == group) & (split == code)] for code in (Split.TRAIN, *HELD_OUT))
            later = np.less if config.everywhere else np.less_equal  # moments may be divided where each user has ends
            for earlier, after in ((train, valid), (valid, test), (train, test)):
                assert not len(earlier) or not len(after) or later(earlier.max(), after.min())

    def test_boundaries_are_told_in_words(self) -> None:
        """By name, for the manifest."""
        events = Events.random()
        told = self.config().boundaries(time=events.time, scale=events.scale)
        assert all(isinstance(word, str) and word for entry in told.items() for word in entry)

    def test_it_says_what_holding_out_needs(self) -> None:
        """One sentence that the error for a log too small ends with."""
        assert self.config().needs
        assert not self.config().needs.endswith(".")
