"""What components need that a test of all of them cannot leave at its default: files and models of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gensr.data.dataset import Dataset
from gensr.testing.semantic import tiny_sentence_model
from tests.data.sources import kuaisar_files


def required_options(kind: str, name: str, dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    """Options for a small component `name` of `kind` on `dataset`; files it reads are written to `folder`."""
    make = OPTIONS.get((kind, name))
    return make(dataset, folder) if make else {}


def _vectors(dataset: Dataset, folder: Path) -> dict[str, Any]:
    table = np.random.default_rng(0).standard_normal((dataset.num_items, 8)).astype(np.float32)
    np.save(folder / "items.npy", table)
    return {"path": str(folder / "items.npy")}


def _log(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    rows = ["user_id,item_id,timestamp,task,query"]
    for user in range(4):
        rows += [
            f"u{user},i{user + time},{time},{'search' if time % 2 else 'rec'},{'red shoe' if time % 2 else ''}"
            for time in range(6)
        ]
    (folder / "events.csv").write_text("\n".join(rows) + "\n")
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"i{item},thing {item}\n" for item in range(9)))
    return {"path": str(folder)}


def _amazon(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    """Reviews and metadata of 2014; every third item has no category path of two levels."""
    reviews = [
        {"reviewerID": f"A{user}", "asin": f"B{user + day}", "unixReviewTime": 1_400_000_000 + 86_400 * (day // 2)}
        for user in range(4)
        for day in range(6)
    ]
    items = [
        {"asin": f"B{item}", "title": f"Thing {item}", "categories": [["Books"], ["Books", f"Kind {'ab'[item % 2]}"]]}
        | ({"categories": [["Books"]]} if item % 3 == 0 else {})
        for item in range(9)
    ]
    (folder / "reviews_Books_5.json").write_text("".join(f"{json.dumps(review)}\n" for review in reviews))
    (folder / "meta_Books.json").write_text("".join(f"{item!r}\n" for item in items))
    return {"reviews": str(folder / "reviews_Books_5.json")}


def _product_search(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    """The released files with the reviews of `_amazon`, of which the last of every user is hidden."""
    reviews = _amazon(dataset, folder)["reviews"]
    (folder / "query_text.txt").write_text("books kind\nbooks other\n")
    for name, days in (("train", range(5)), ("test", range(5, 6))):
        pairs = [f"A{user}_{day % 2} 0 B{user + day} 1\n" for user in range(4) for day in days]
        (folder / f"{name}.qrels").write_text("".join(pairs))
    lines = [f"line_{6 * user + day}\n" for user in range(4) for day in range(5)]
    (folder / "train_review_id.txt").write_text("".join(lines))
    return {"path": str(folder), "reviews": reviews}


def _kuaisar(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    times = [kuaisar_files.NOON + hour * 9 * 3_600_000 for hour in range(6)]
    feed = [
        kuaisar_files.feed_row(user, user + at, time, click=1) for user in range(4) for at, time in enumerate(times)
    ]
    search = [
        kuaisar_files.search_row(user, 10 * user + at, time + 1000, f"[{at % 2}]", user + at + clicked, clicked)
        for user in range(4)
        for at, time in enumerate(times[:4])
        for clicked in (0, 1)
    ]
    items = [f'{item},"[{item}, 7]",0,NORMAL,2023-05-01 10:00:00,A,{kuaisar_files.LEVELLESS}' for item in range(12)]
    kuaisar_files.write_log(folder, feed=feed, search=search, items=items)
    return {"path": str(folder)}


def _movielens(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    ratings = [
        f"{user},{user + day},{day % 5 + 1}.0,{1_400_000_000 + 86_400 * day}" for user in range(4) for day in range(6)
    ]
    tags = [f"{user},{user + day},dark {day},{1_400_000_000 + 86_400 * day}" for user in range(4) for day in (1, 3, 5)]
    movies = [f"{movie},Movie {movie} (1995),Drama|Comedy" for movie in range(9)]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *ratings]) + "\n")
    (folder / "tags.csv").write_text("\n".join(["userId,movieId,tag,timestamp", *tags]) + "\n")
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies]) + "\n")
    return {"path": str(folder)}


def _recbole(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    rows = [f"u{user}\ti{user + at}\t{at}\t{'red shoe' * (at % 2)}" for user in range(4) for at in range(6)]
    header = "user_id:token\titem_id:token\ttimestamp:float\tquery:token_seq"
    (folder / "shop.inter").write_text("\n".join([header, *rows]) + "\n")
    items = [f"i{item}\tthing {item}\tHome Kitchen" for item in range(9)]
    (folder / "shop.item").write_text("\n".join(["item_id:token\ttitle:token_seq\tclass:token_seq", *items]) + "\n")
    return {"path": str(folder)}


def _beir(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    documents = [{"_id": f"d{at}", "title": f"Thing {at}", "text": "as it is"} for at in range(9)]
    queries = [{"_id": f"q{at}", "text": f"some thing {at}"} for at in range(4)]
    (folder / "corpus.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in documents))
    (folder / "queries.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in queries))
    (folder / "qrels").mkdir()
    for name, ranks in (("train", range(4)), ("dev", (4,)), ("test", (5,))):
        pairs = [f"q{query}\td{query + rank}\t1\n" for query in range(4) for rank in ranks]
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(pairs))
    return {"path": str(folder)}


def _two_logs(dataset: Dataset | None, folder: Path) -> dict[str, Any]:
    later = folder / "later"
    later.mkdir()
    rows = [f"u{user},i{user},{time},rec," for user in range(3, 6) for time in (7, 8)]
    (later / "events.csv").write_text("\n".join(["user_id,item_id,timestamp,task,query", *rows]) + "\n")
    (later / "items.csv").write_text("item_id,title\n" + "".join(f"i{item},thing {item}\n" for item in range(3, 12)))
    return {"base": {"type": "table", **_log(dataset, folder)}, "new": {"type": "table", "path": str(later)}}


OPTIONS = {
    ("source", "append"): _two_logs,
    ("source", "table"): _log,
    ("source", "movielens"): _movielens,
    ("source", "recbole"): _recbole,
    ("source", "beir"): _beir,
    ("source", "kuaisar"): _kuaisar,
    ("source", "amazon"): _amazon,
    ("source", "product_search"): _product_search,
    ("cf", "file"): _vectors,
    ("semantic", "file"): _vectors,
    ("semantic", "sentence"): lambda dataset, folder: {"model": str(tiny_sentence_model(folder))},
}
