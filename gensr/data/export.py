"""Prepared data in the formats of other tools: Parquet tables, RecBole's atomic files, TREC's text files.

Whoever doubts a number can rank the very same requests, histories and candidates with a program of somebody else's.
Events are written a block at a time, and a folder appears complete or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gensr.data.catalogue import SPACE
from gensr.data.split import HELD_OUT, Split
from gensr.data.tasks import Task
from gensr.errors import BadInputError, did_you_mean
from gensr.evaluation.trec import one_word
from gensr.files import new_folder, write_json

if TYPE_CHECKING:
    from gensr.data.candidates import CandidateList
    from gensr.data.dataset import Dataset
    from gensr.data.texts import Texts

BLOCK = 65_536
"""Events that are texts at the same time."""
REQUESTS = 4096
"""Requests whose candidates are texts at the same time."""
PROVENANCE = "export.json"


def check_target(form: str, folder: Path) -> None:
    """Raise `BadInputError` where `write_export` would: an unknown format, a folder that exists."""
    if form not in FORMATS:
        raise BadInputError(f"no format {form!r}{did_you_mean(form, FORMATS) or '.'} Known: {', '.join(FORMATS)}")
    if folder.exists():
        raise BadInputError(f"{folder} exists; an export needs a folder of its own: name another, or remove it")


def write_export(dataset: Dataset, form: str, folder: Path) -> dict[str, Any]:
    """Write prepared data into a new folder.

    Args:
        dataset: the prepared data.
        form: one of `FORMATS`.
        folder: must not exist; RecBole's files are named after it.

    Returns:
        What the folder's ``export.json`` tells: fingerprint and counts of the data, hashes of the candidate lists, rows
        per file, and the data section of a spec that reads it back.

    Raises:
        BadInputError: an unknown format, a folder that exists, or an id that the format cannot carry.
    """
    check_target(form, folder)
    with new_folder(folder) as temporary:
        told = FORMATS[form](dataset, temporary, folder.name)
        if "read_back" in told:
            told["read_back"] = _read_back(dataset, *told["read_back"], folder=folder)
        found = {
            "format": form,
            **{name: dataset.manifest[name] for name in ("fingerprint", "counts", "time", "candidates")},
            **told,
        }
        write_json(temporary / PROVENANCE, found)
    return found


def _read_back(dataset: Dataset, kind: str, file: str, *, folder: Path) -> dict[str, Any]:
    """The data section of a spec that prepares the export to the same data: nothing is filtered or split again."""
    time = {f"time_{name}": value for name, value in dataset.manifest["time"].items()}
    source = {"type": kind, "path": str(folder / file), **time}
    spec = dataset.manifest["spec"]
    kept = {name: spec[name] for name in ("item_text", "seed", "max_history", "train_negatives", "candidates")}
    return {"source": source, "split": "given", **kept}


# Parquet


def write_parquet(dataset: Dataset, folder: Path, name: str) -> dict[str, Any]:
    """`interactions.parquet` and `items.parquet`, which the `table` source reads back.

    Interactions have user_id, item_id, timestamp (int64, in the log's unit), task, query (null for recommendations) and
    split; ``order`` where the log had it; ``session`` where it had sessions, renumbered: those of a user that share
    session and query are the clicks of one page.
    """
    rows = {"interactions.parquet": dataset.num_events, "items.parquet": dataset.num_items}
    writer = None
    try:
        for block in _blocks(dataset.num_events):
            table = _events(dataset, block)
            writer = writer or pq.ParquetWriter(folder / "interactions.parquet", table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    pq.write_table(_items(dataset), folder / "items.parquet", compression="zstd")
    return {"rows": rows, "read_back": ("table", "")}


def _events(dataset: Dataset, at: slice) -> pa.Table:
    """A block of events as the columns of a log."""
    task, split = np.asarray(dataset.task[at]), np.asarray(dataset.split[at])
    columns = {
        "user_id": _texts(dataset.user_ids, dataset.user[at]),
        "item_id": _texts(dataset.catalogue.item_ids, dataset.item[at]),
        "timestamp": pa.array(dataset.time[at], pa.int64()),
        "task": _labels({int(code): code.label for code in Task}, task),
        "query": _texts(dataset.catalogue.queries, dataset.query[at]),
        "split": _labels({int(code): code.label for code in Split}, split),
    }
    if dataset.entry is not None:
        # A session per page of results: what a history takes for one entry stays one, whatever it was called.
        page = pa.array(dataset.entry[at.start + 1 : at.stop + 1]).cast(pa.string())
        columns["session"] = pc.if_else(pa.array(task == Task.SEARCH), page, pa.scalar(None, pa.string()))
    if dataset.order is not None:
        columns["order"] = pa.array(dataset.order[at], pa.int64())
    return pa.table(columns)


def _items(dataset: Dataset) -> pa.Table:
    catalogue = dataset.catalogue
    texts = {"item_id": catalogue.item_ids, "title": catalogue.titles, "categories": catalogue.categories}
    return pa.table({name: column.arrow for name, column in texts.items()})


# RecBole


def write_recbole(dataset: Dataset, folder: Path, name: str) -> dict[str, Any]:
    """`NAME.inter` and `NAME.item`, and a file per split that RecBole's ``benchmark_filename`` names.

    Files are UTF-8, separated by tabs, with a typed header. `NAME.inter` holds all events; of the files by split,
    `NAME.unused.inter` holds those that must train nothing, because their other face is held out.

    Raises:
        BadInputError: an id with a tab or a line end, which these files cannot carry.
    """
    for what, ids in (("user", dataset.user_ids), ("item", dataset.catalogue.item_ids)):
        _refuse_separators(what, ids)
    columns = {"user_id": "token", "item_id": "token", "timestamp": "float", "task": "token", "query": "token_seq"}
    header = "\t".join(f"{column}:{kind}" for column, kind in columns.items()) + "\n"
    rows = {f"{name}.inter": dataset.num_events, f"{name}.item": dataset.num_items}
    sizes = {split: len(dataset.requests(split)) for split in Split}
    with ExitStack() as files:
        everything = files.enter_context((folder / f"{name}.inter").open("wb"))
        parts = {}
        for split, size in sizes.items():
            if size:
                rows[f"{name}.{split.label}.inter"] = size
                parts[split] = files.enter_context((folder / f"{name}.{split.label}.inter").open("wb"))
        for file in (everything, *parts.values()):
            file.write(header.encode())
        for block in _blocks(dataset.num_events):
            table = _events(dataset, block)
            lines = _lines([_cell(table[column]) for column in columns])
            _write(everything, lines)
            for split, file in parts.items():
                _write(file, lines.filter(pa.array(dataset.split[block] == split)))
    with (folder / f"{name}.item").open("wb") as file:
        file.write(b"item_id:token\ttitle:token_seq\tcategories:token_seq\n")
        items = _items(dataset)
        for block in _blocks(dataset.num_items):
            some = items.slice(block.start, block.stop - block.start)
            _write(file, _lines([_cell(some["item_id"]), _cell(some["title"]), _cell(_levels(some["categories"]))]))
    benchmark = [split.label for split in (Split.TRAIN, *HELD_OUT) if split in parts]
    return {"rows": rows, "read_back": ("recbole", f"{name}.train.inter"), "benchmark_filename": benchmark}


def _refuse_separators(what: str, ids: Texts) -> None:
    bad = pc.match_substring_regex(ids.arrow, r"[\t\r\n]")
    if pc.any(bad).as_py():
        first = ids.arrow.filter(bad)[0].as_py()
        raise BadInputError(
            f"{what} id {first!r} holds a tab or a line end, which RecBole's files cannot carry; use --format parquet"
        )


def _cell(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as cells between tabs, as pandas reads them: white space is a space, a quote makes it quoted."""
    if not pa.types.is_string(column.type):
        return column.cast(pa.string())
    text = pc.replace_substring_regex(pc.fill_null(column, ""), r"[\t\r\n]+", " ")
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(text, '"', '""'), '"', "")
    return pc.if_else(pc.match_substring(text, '"'), quoted, text)


def _levels(categories: pa.ChunkedArray) -> pa.ChunkedArray:
    """Category levels as tokens that spaces separate: ``Home Kitchen|Tea||Gifts`` -> ``Home_Kitchen Tea Gifts``."""
    words = pc.replace_substring_regex(pc.utf8_trim_whitespace(categories), r"\s+", "_")
    return pc.replace_substring_regex(words, r"_?\|+_?", " ")


# TREC


def write_trec(dataset: Dataset, folder: Path, name: str) -> dict[str, Any]:
    """`corpus.jsonl`, and per held-out split and task `topics-*.tsv`, `qrels-*.txt` and a candidates file per list.

    Query ids and documents are those of the runs that `gensr build` writes: ``<task>-<position of the event>``, and raw
    item ids with white space and ``%`` percent-encoded. A topic is ``qid<TAB>text``: the query, or for recommendation
    the documents of the visible history, oldest first (of several clicks on one page the first). A candidates file has
    the form of a run: the candidates in stored order, all with score 0. Lists that are not stored are not written.
    """
    documents = _documents(dataset)
    rows = {"corpus.jsonl": dataset.num_items}
    _write_corpus(dataset, documents, folder / "corpus.jsonl")
    lists = {listed: dataset.candidates(listed) for listed in dataset.candidate_names}
    stored = {listed: found for listed, found in lists.items() if isinstance(found.lists[Split.TEST][1], np.ndarray)}
    for split in HELD_OUT:
        for task in Task:
            events = dataset.requests(split, task)
            if not len(events):
                continue
            part = f"{split.label}-{task.label}"
            rows[f"topics-{part}.tsv"] = rows[f"qrels-{part}.txt"] = len(events)
            _write_topics(dataset, events, task, documents, folder / f"topics-{part}.tsv")
            _write_qrels(dataset, events, task, documents, folder / f"qrels-{part}.txt")
            for listed, found in stored.items():
                file = f"candidates-{listed}-{part}.txt"
                rows[file] = _write_candidates(dataset, found, split, task, documents, folder / file)
    return {"rows": rows, "lists_left_out": sorted({*lists} - {*stored})}


def _documents(dataset: Dataset) -> pa.Array:
    """Item ids of rows 1..I as one word each."""
    ids = dataset.catalogue.item_ids.arrow
    odd = pc.match_substring_regex(ids, f"[{SPACE}%]")
    if not pc.any(odd).as_py():
        return ids
    return pc.replace_with_mask(ids, odd, pa.array([one_word(raw) for raw in ids.filter(odd).to_pylist()], pa.string()))


def _write_corpus(dataset: Dataset, documents: pa.Array, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for block in _blocks(dataset.num_items):
            texts = dataset.catalogue.text.take(np.arange(block.start + 1, block.stop + 1))
            for name, text in zip(documents[block].to_pylist(), texts, strict=True):
                file.write(json.dumps({"id": name, "contents": text}, ensure_ascii=False) + "\n")


def _write_topics(dataset: Dataset, events: np.ndarray, task: Task, documents: pa.Array, path: Path) -> None:
    length = int(dataset.manifest["spec"]["max_history"])
    with path.open("wb") as file:
        for block in _blocks(len(events)):
            asked = events[block]
            if task is Task.SEARCH:
                text = _texts(dataset.catalogue.queries, dataset.query[asked])
            else:
                positions, real = dataset.history(asked, length)
                ends = np.concatenate([[0], real.sum(axis=1).cumsum()])
                seen = documents.take(pa.array(dataset.item[positions[real]] - 1))
                text = pc.binary_join(pa.ListArray.from_arrays(pa.array(ends, pa.int32()), seen), " ")
            _write(file, _lines([_query_ids(asked, task), text]))


def _write_qrels(dataset: Dataset, events: np.ndarray, task: Task, documents: pa.Array, path: Path) -> None:
    with path.open("wb") as file:
        for block in _blocks(len(events)):
            truth = documents.take(pa.array(dataset.item[events[block]] - 1))
            _write(file, _lines([_query_ids(events[block], task), "0", truth, "1"], separator=" "))


def _write_candidates(
    dataset: Dataset, candidates: CandidateList, split: Split, task: Task, documents: pa.Array, path: Path
) -> int:
    """Write the stored candidates of one split and task; returns the lines."""
    events, items = candidates.lists[split]
    chosen, written = np.flatnonzero(dataset.task[events] == task), 0
    with path.open("wb") as file:
        for start in range(0, len(chosen), REQUESTS):
            some = chosen[start : start + REQUESTS]
            drawn = np.asarray(items[some])  # [R, C], 0 = padding
            real = drawn > 0
            request, _ = np.nonzero(real)
            names = _query_ids(events[some], task).take(pa.array(request))
            place = pa.array(real.cumsum(axis=1)[real]).cast(pa.string())
            found = documents.take(pa.array(drawn[real] - 1))
            _write(file, _lines([names, "Q0", found, place, "0", candidates.name], separator=" "))
            written += len(names)
    return written


def _query_ids(events: np.ndarray, task: Task) -> pa.Array:
    return pc.binary_join_element_wise(task.label, pa.array(events).cast(pa.string()), "-")


# What the formats share


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK))


def _texts(texts: Texts, rows: np.ndarray) -> pa.Array:
    """Texts of rows [n]; null for row 0."""
    return texts.arrow.take(pa.array(np.asarray(rows, np.int64) - 1, mask=np.asarray(rows) == 0))


def _labels(words: dict[int, str], codes: np.ndarray) -> pa.Array:
    """The word of each code [n]."""
    texts = pa.array([words.get(code, "") for code in range(max(words) + 1)])
    return texts.take(pa.array(codes))


def _lines(cells: list[pa.Array | pa.ChunkedArray | str], separator: str = "\t") -> pa.Array:
    """One text a row, its line end included; a cell that is a text stands in every row."""
    lines = pc.binary_join_element_wise(pc.binary_join_element_wise(*cells, separator), "\n", "")
    return lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines


def _write(file: IO[bytes], lines: pa.Array) -> None:
    """Write lines without turning them into objects: Arrow keeps texts one after the other."""
    if len(lines):
        _, offsets, data = lines.buffers()
        first, last = (np.frombuffer(offsets, np.int32)[at] for at in (lines.offset, lines.offset + len(lines)))
        file.write(memoryview(data)[first:last])


FORMATS: dict[str, Callable[[Dataset, Path, str], dict[str, Any]]] = {
    "trec": write_trec,
    "recbole": write_recbole,
    "parquet": write_parquet,
}
"""Writers by name: each fills a folder that will be called `name`, and tells what to note about it."""
