"""A made-up log of the shape and layout of KuaiSAR, of any size: what the scale of data preparation is measured on.

Five CSV files with all published columns and their quirks: dates as texts where the documentation says numbers, times
as floats, lists as texts, missing categories called "empty", pages of results that share one time, sessions without a
click, a few keyword lists that do not parse. Everything follows from the seed, block by block, so that neither the
size of the log nor that of the catalogue costs memory.

    python benchmarks/kuaisar_log.py --users 25000 --items 4000000 --events 20000000 --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

BLOCK = 1 << 18
START, END = 1_684_737_000_000, 1_686_360_600_000
"""2023-05-22 14:30 and 2023-06-10 09:30 Beijing time, in Unix ms."""
BEIJING = 8 * 3_600_000
RECOMMENDED = 0.743
"""Share of the rows that are recommendations: 14,605,716 of 19,664,885."""
PAGE, SESSION = 6, 11
"""Mean items that the feed delivers together, and mean items of a search session (5,059,169 over 453,667)."""
CLICKED_SESSIONS, UNREADABLE = 0.6, 1e-4
WORDS, FIRST, SECOND = 400_000, 38, 297
TYPES = np.array(["VIDEO", "IMAGE_ATLAS", "USER", "LIVE", "COMMODITY", "MUSIC", "ADVERT"])
TYPE_SHARES = (0.85, 0.06, 0.04, 0.02, 0.01, 0.01, 0.01)
NAMES = {
    "rec_inter.csv": "user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,"
    "search_item_related",
    "src_inter.csv": "user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,"
    "item_id,click_cnt,item_type",
    "item_features.csv": "item_id,caption,author_id,item_type,upload_time,upload_type,"
    + ",".join(
        f"{level}_level_category_{part}"
        for level in ("first", "second", "third", "fourth")
        for part in ("id", "name", "name_en")
    ),
    "user_features.csv": "user_id,search_active_level,rec_active_level,onehot_feat1,onehot_feat2",
    "social_network.csv": "user_id,user_follow_id",
}


@dataclass(frozen=True)
class Size:
    """How large a log to make."""

    users: int
    items: int
    events: int
    """Rows of both event files."""
    seed: int = 42


def write_log(size: Size, folder: Path) -> None:
    """Write the five files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    recommended = round(size.events * RECOMMENDED)
    blocks = {
        "rec_inter.csv": _recommendations(size, recommended),
        "src_inter.csv": _searches(size, size.events - recommended),
        "item_features.csv": _items(size),
        "user_features.csv": iter([_users(size)]),
        "social_network.csv": iter([_follows(size)]),
    }
    for name, columns in blocks.items():
        _write(folder / name, columns)


def _write(path: Path, blocks: Iterator[list[pa.Array]]) -> None:
    names = NAMES[path.name].split(",")
    with path.open("wb") as stream:
        stream.write((",".join(names) + "\n").encode())
        for columns in blocks:
            table = pa.table(columns, names=names)
            pyarrow.csv.write_csv(table, stream, pyarrow.csv.WriteOptions(include_header=False))


def _recommendations(size: Size, rows: int) -> Iterator[list[pa.Array]]:
    for number, count in enumerate(_counts(rows)):
        rng = np.random.default_rng([size.seed, 0, number])
        page = _groups(rng, count, PAGE)
        user, time = _people(rng, size, page[-1] + 1)
        click = rng.random(count) < 0.5
        length = np.floor(rng.lognormal(10, 0.8, count))
        search = rng.random(count) < 0.01
        rare = [pa.array((rng.random(count) < share).astype(np.int64)) for share in (0.003, 0.02, 0.002)]
        yield [
            pa.array(user[page]),
            pa.array(_popular(rng, size, count)),
            pa.array(np.floor(length * np.where(click, 0.9, 0.2) * rng.random(count))),
            pa.array(length),
            _date(time[page]),
            _as_float(time[page]),
            pa.array(click.astype(np.int64)),
            *rare,
            pa.array(search.astype(np.int64)),
            pa.array((search & (rng.random(count) < 0.3)).astype(np.int64)),
        ]


def _searches(size: Size, rows: int) -> Iterator[list[pa.Array]]:
    sessions = 0
    for number, count in enumerate(_counts(rows)):
        rng = np.random.default_rng([size.seed, 1, number])
        group = _groups(rng, count, SESSION)
        total = int(group[-1]) + 1
        user, time = _people(rng, size, total)
        topic = _popular(rng, size, total)
        clicked = rng.random(total) < CLICKED_SESSIONS
        first = np.searchsorted(group, np.arange(total))
        length = np.bincount(group)
        chosen = np.zeros(count, bool)
        chosen[first + (rng.random(total) ** 2 * length).astype(np.int64)] = True
        click = clicked[group] & (chosen | (rng.random(count) < 0.08))
        keyword = _bracketed(_word_lists(topic, 1 + (rng.random(total) ** 2 * 4).astype(np.int64), salt=0))
        keyword = pc.if_else(pa.array(rng.random(total) < UNREADABLE), pa.scalar("[12, "), keyword)
        source = np.where(rng.random(total) < 0.7, "USER_INPUT", "SEARCH_FEED_RECO")
        item = _popular(rng, size, count)
        item[first] = topic
        yield [
            pa.array(user[group]),
            pa.array(sessions + 1 + group),
            _date(time[group]),
            _as_float(time[group]),
            keyword.take(pa.array(group)),
            pa.array(source[group]),
            pa.array(item),
            pa.array(click * (1 + (rng.random(count) < 0.1))),
            pa.array(TYPES[rng.choice(len(TYPES), count, p=TYPE_SHARES)]),
        ]
        sessions += total


def _items(size: Size) -> Iterator[list[pa.Array]]:
    begin = 1
    for number, count in enumerate(_counts(size.items)):
        rng = np.random.default_rng([size.seed, 2, number])
        item = np.arange(begin, begin + count, dtype=np.int64)
        begin += count
        second = (_uniform(item, 101) ** 2 * SECOND).astype(np.int64) + 1
        depth = rng.choice(5, count, p=(0.02, 0.08, 0.3, 0.4, 0.2))
        ids = (second % FIRST + 1, 100 + second, 1000 + second * 3 + item % 3, 10_000 + second * 9 + item % 9)
        categories = []
        for level, known in enumerate(ids):
            known = pa.array(np.where(depth > level, known, 0))
            text, absent = known.cast(pa.string()), pc.equal(known, 0)
            categories.append(known)
            for prefix in ("类别", "category "):
                named = pc.binary_join_element_wise(pa.scalar(prefix), text, "")
                categories.append(pc.if_else(absent, "empty", named))
        age = (rng.random(count) ** 3 * 3e10).astype(np.int64)
        yield [
            pa.array(item),
            _bracketed(_word_lists(item, 2 + (_uniform(item, 102) * 14).astype(np.int64), salt=0)),
            pa.array(rng.integers(0, max(size.items // 8, 1), count)),
            pa.array(np.where(rng.random(count) < 0.97, "NORMAL", "ads")),
            _date(np.where(rng.random(count) < 0.01, -BEIJING, START - age)),
            pa.array(np.where(rng.random(count) < 0.8, "ShortImport", "LongCamera")),
            *categories,
        ]


def _users(size: Size) -> list[pa.Array]:
    rng = np.random.default_rng([size.seed, 3])
    levels = (5, 5, 8, 3)  # the one-hot features as UniSAR sizes them, the opposite of the documentation
    return [pa.array(np.arange(1, size.users + 1)), *(pa.array(rng.integers(0, n, size.users)) for n in levels)]


def _follows(size: Size) -> list[pa.Array]:
    rng = np.random.default_rng([size.seed, 4])
    who = rng.choice(size.users, max(size.users // 45, 1), replace=False) + 1
    return [pa.array(who), pa.array(rng.integers(1, size.users + 1, len(who)))]


def _counts(rows: int) -> Iterator[int]:
    return (min(BLOCK, rows - begin) for begin in range(0, rows, BLOCK))


def _groups(rng: np.random.Generator, rows: int, mean: int) -> np.ndarray:
    """Consecutive groups of `mean` rows on average, numbered from 0: int64 [rows], ascending."""
    sizes = rng.geometric(1 / mean, 2 * rows // mean + 100)
    return np.repeat(np.arange(len(sizes)), sizes)[:rows]


def _people(rng: np.random.Generator, size: Size, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """A user and a time for every page or session; some users are far more active than others."""
    user = (rng.random(groups) ** 1.6 * size.users).astype(np.int64) + 1
    return user, rng.integers(START, END, groups)


def _popular(rng: np.random.Generator, size: Size, count: int) -> np.ndarray:
    """Item ids from 1, a few of them far more popular than the rest, in no order of their ids."""
    rank = (rng.random(count) ** 3 * size.items).astype(np.int64)
    stride = 2_654_435_761
    while np.gcd(stride, size.items) != 1:
        stride += 2
    return (rank * (stride % size.items)) % size.items + 1


def _uniform(keys: np.ndarray, salt: int) -> np.ndarray:
    """A number in [0, 1) that follows from key and salt alone (splitmix64)."""
    mixed = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt * 0xD1B54A32D192ED03 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed >> np.uint64(11)) / float(1 << 53)


def _word_lists(items: np.ndarray, lengths: np.ndarray, *, salt: int) -> pa.ListArray:
    """The first `lengths` words of the items' captions, by item alone: a query shares words with what it asks for."""
    ends = np.cumsum(lengths)
    position = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
    keys = np.repeat(items, lengths) * 64 + position
    words = (_uniform(keys, salt) ** 2 * WORDS).astype(np.int64) + 1
    return pa.ListArray.from_arrays(pa.array(np.append(0, ends).astype(np.int32)), pa.array(words))


def _bracketed(lists: pa.ListArray) -> pa.Array:
    """Lists as the published files write them: ``[12, 7, 99]``."""
    joined = pc.binary_join(lists.cast(pa.list_(pa.string())), ", ")
    return pc.binary_join_element_wise("[", joined, "]", "")


def _date(time: np.ndarray) -> pa.Array:
    """Beijing time as the published files write it: ``2023-05-22 14:30:00``."""
    return pa.array((time + BEIJING) // 1000, pa.timestamp("s"))


def _as_float(time: np.ndarray) -> pa.Array:
    """``1684737000000.0``; as a decimal, because Arrow would write a float as 1.684737e+12."""
    return pa.array(time).cast(pa.decimal128(20, 1))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=25_000)
    parser.add_argument("--items", type=int, default=4_000_000)
    parser.add_argument("--events", type=int, default=20_000_000, help="rows of both event files")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, required=True, help="folder for the five files")
    options = parser.parse_args(arguments)
    write_log(Size(options.users, options.items, options.events, options.seed), options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
