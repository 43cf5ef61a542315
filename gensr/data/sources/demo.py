"""A made-up shop small enough for a laptop, with planted structure that only a joint reader of both tasks can use.

Every item belongs to a family (what it is; in its categories) and a style (for whom; a brand and a word in its title).
A user likes one style, a second one a little, and a few families, among which the interest drifts. Recommendation
events are items of the user's style in the current family; searches name a family alone, and the click follows the
style. So a query leaves about ten of a hundred candidates, a taste about twelve, and both together one or two. Items
arrive and age, so that what is bought last has been bought little before: counts are no substitute for reading.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gensr.data.log import EVENTS, ITEMS, EventLog, check_log
from gensr.data.sources.config import DemoConfig
from gensr.data.tasks import Task


class Family(NamedTuple):
    """A kind of product: its categories, the nouns of its titles, the queries that mean it."""

    categories: str
    nouns: tuple[str, ...]
    queries: tuple[str, ...]


FAMILIES = (
    Family("Kitchen|Kettles", ("kettle", "teapot"), ("kettles", "kitchen kettle", "boil water for tea")),
    Family("Kitchen|Knives", ("knife", "cleaver"), ("knives", "kitchen knives", "sharp blade for cooking")),
    Family("Living Room|Lamps", ("lamp", "lantern"), ("lamps", "living room lamp", "warm light for reading")),
    Family("Living Room|Rugs", ("rug", "carpet"), ("rugs", "living room rugs", "soft floor cover")),
    Family("Garden|Chairs", ("chair", "lounger"), ("garden chairs", "chairs", "somewhere to sit outside")),
    Family("Garden|Planters", ("planter", "pot"), ("planters", "garden planters", "box for my herbs")),
    Family("Travel|Backpacks", ("backpack", "daypack"), ("backpacks", "travel backpack", "bag for a weekend")),
    Family("Travel|Bottles", ("bottle", "flask"), ("bottles", "travel bottle", "keep drinks cold")),
    Family("Office|Notebooks", ("notebook", "journal"), ("notebooks", "office notebooks", "paper to write on")),
    Family("Office|Headphones", ("headphones", "headset"), ("headphones", "office headphones", "quiet music at work")),
)


class Style(NamedTuple):
    """A taste: the brands that serve it and the words they use, one of each in every title."""

    brands: tuple[str, ...]
    words: tuple[str, ...]


STYLES = (
    Style(("Nordwick", "Fjella"), ("minimal", "plain")),
    Style(("Oldbarn", "Heirloom"), ("rustic", "vintage")),
    Style(("Voltix", "Neoform"), ("smart", "futuristic")),
    Style(("Petal", "Rosalie"), ("floral", "romantic")),
    Style(("Ironclad", "Forge"), ("industrial", "rugged")),
    Style(("Bambu", "Greenleaf"), ("organic", "natural")),
    Style(("Maharani", "Lustre"), ("ornate", "golden")),
    Style(("Popsy", "Jellybean"), ("playful", "colourful")),
)

FINISHES = ("black", "white", "grey", "blue", "red", "green", "large", "small", "classic", "new")

START = 1_704_067_200  # 2024-01-01 UTC
SPAN = 180 * 86_400
RECOMMENDATIONS = 0.7  # share of moments that are recommendations
TWINS = 0.25  # share of recommendations that the user had searched for
ACTIVE = 0.85  # share of possible moments at which a user does something
OWN_STYLE, SECOND_STYLE = 0.85, 0.10  # the rest of the events is noise
STAY = 0.85  # chance that the interest stays in its family
LIFETIME = 0.3  # of an item's appeal, in spans
OLDEST, NEWEST = -0.5, 0.95  # arrivals, in spans
FAVOURITES = 3


class Shelf(NamedTuple):
    """The items, by row from 0."""

    family: np.ndarray  # [I]
    style: np.ndarray  # [I]
    appeal: np.ndarray  # [I] log weight of an item that just arrived
    arrival: np.ndarray  # [I] in spans; below 0 = before the log begins


def make_shop(config: DemoConfig) -> EventLog:
    """The shop's log; equal configs give equal logs."""
    rng = np.random.default_rng(config.seed)
    shelf = _stock(config.items, rng)
    moments = round(config.events_per_user / (ACTIVE * (1 + RECOMMENDATIONS * TWINS)))
    start, end = rng.uniform(0, 0.2, (config.users, 1)), rng.uniform(0.8, 1, (config.users, 1))
    time = np.sort(rng.uniform(start, end, (config.users, moments)), axis=1)  # [U, K] in spans
    recommended = rng.random(time.shape) < RECOMMENDATIONS
    family = _families(recommended, rng)
    style = _styles(time.shape, rng)
    item, again = _choose(shelf, family, style, time, rng)
    active = (rng.random(time.shape) < ACTIVE) & ~again
    searched = active & (~recommended | (rng.random(time.shape) < TWINS))
    query = rng.integers(len(FAMILIES[0].queries), size=time.shape)
    events = _events(active & recommended, searched, time, item, shelf.family[item], query)
    return check_log(events, _items(shelf, rng), {"generated": config.model_dump(mode="json")})


def _stock(items: int, rng: np.random.Generator) -> Shelf:
    """Families and styles in equal parts, in random order; a third of the items arrives while the log runs."""
    cell = rng.permutation(np.arange(items) % (len(FAMILIES) * len(STYLES)))
    arrival = rng.uniform(OLDEST, NEWEST, items)
    arrival[np.unique(cell, return_index=True)[1]] = OLDEST  # no cell is ever empty
    return Shelf(cell % len(FAMILIES), cell // len(FAMILIES), rng.normal(0, 0.5, items), arrival)


def _families(recommended: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What each moment [U, K] is about: a slow walk among the user's favourites, or anything for a search."""
    users, moments = recommended.shape
    favourites = rng.permuted(np.tile(np.arange(len(FAMILIES)), (users, 1)), axis=1)[:, :FAVOURITES]
    moves = rng.random((users, moments)) > STAY
    steps = np.where(moves, rng.integers(1, FAVOURITES, (users, moments)), 0)
    walk = np.take_along_axis(favourites, np.cumsum(steps, axis=1) % FAVOURITES, axis=1)
    return np.where(recommended, walk, rng.integers(len(FAMILIES), size=walk.shape))


def _styles(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The style that each moment [U, K] follows."""
    tastes = rng.permuted(np.tile(np.arange(len(STYLES)), (shape[0], 1)), axis=1)[:, :2]
    draw = rng.random(shape)
    noise = rng.integers(len(STYLES), size=shape)
    return np.where(draw < OWN_STYLE, tastes[:, :1], np.where(draw < OWN_STYLE + SECOND_STYLE, tastes[:, 1:], noise))


def _choose(
    shelf: Shelf, family: np.ndarray, style: np.ndarray, time: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Items [U, K] of the wanted family and style, fresh and appealing ones first, and where one is chosen again
    because the user has had all that arrived.
    """
    cells = shelf.family + len(FAMILIES) * shelf.style
    order = np.argsort(cells, kind="stable")
    sizes = np.bincount(cells)
    shelves = np.full((len(sizes), sizes.max()), -1)
    shelves[cells[order], np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)] = order
    chosen, again = np.full(time.shape, -1), np.zeros(time.shape, bool)
    rows = np.arange(len(time))
    for k in range(time.shape[1]):
        offered = shelves[family[:, k] + len(FAMILIES) * style[:, k]]  # [U, items of a cell], -1 = none
        age = time[:, k, None] - shelf.arrival[offered]
        seen = (offered[:, :, None] == chosen[:, None, :k]).any(axis=2)
        score = shelf.appeal[offered] - age / LIFETIME + rng.gumbel(size=offered.shape)
        score -= 100.0 * seen + 1e4 * (age < 0) + 1e8 * (offered < 0)
        best = score.argmax(axis=1)
        chosen[:, k], again[:, k] = offered[rows, best], seen[rows, best]
    return chosen, again


def _events(
    bought: np.ndarray,
    searched: np.ndarray,
    time: np.ndarray,
    item: np.ndarray,
    family: np.ndarray,
    query: np.ndarray,
) -> pa.Table:
    """The table of events, user by user in time; a search and the purchase it led to share their timestamp."""
    queries = np.array([family.queries for family in FAMILIES])
    parts = []
    for code, mask in ((Task.SEARCH, searched), (Task.RECOMMENDATION, bought)):
        user, moment = np.nonzero(mask)
        words = queries[family[mask], query[mask]] if code is Task.SEARCH else np.full(len(user), "")
        parts.append((user, moment, np.full(len(user), int(code)), words))
    user, moment, task, words = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((task, moment, user))
    user, moment = user[order], moment[order]
    columns = [
        [f"u{row + 1:04d}" for row in user.tolist()],
        [_item_id(row) for row in item[user, moment].tolist()],
        START + (time[user, moment] * SPAN).astype(np.int64),
        task[order],
        words[order].tolist(),
    ]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, EVENTS, strict=True)], schema=EVENTS
    )


def _items(shelf: Shelf, rng: np.random.Generator) -> pa.Table:
    """The catalogue: "Nordwick minimal kettle blue", "Kitchen|Kettles"."""
    titles = []
    draws = rng.integers(2, size=(len(shelf.family), 3)).tolist()
    finishes = rng.integers(len(FINISHES), size=len(shelf.family)).tolist()
    for family, style, (brand, word, noun), finish in zip(shelf.family, shelf.style, draws, finishes, strict=True):
        taste, kind = STYLES[style], FAMILIES[family]
        titles.append(f"{taste.brands[brand]} {taste.words[word]} {kind.nouns[noun]} {FINISHES[finish]}")
    ids = [_item_id(row) for row in range(len(titles))]
    categories = [FAMILIES[family].categories for family in shelf.family]
    return pa.table([ids, titles, categories], schema=ITEMS)


def _item_id(row: int) -> str:
    return f"p{row + 1:04d}"
