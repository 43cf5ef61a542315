"""Test collections of information retrieval: what ranking documents for a query is usually measured on.

They have no people and no times. So a query stands in for its user, every event happens at once, and the split comes
from the files. That makes them comparable with published search numbers, and useless for anything about histories.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gensr.data.log import ITEMS, EventLog, check_log, normalise_query
from gensr.data.sources.published import BeirConfig
from gensr.data.sources.text import (
    SHOWN_LINES,
    Dropped,
    TableBuilder,
    content_hash,
    encodable,
    existing,
    find_file,
    find_optional,
    format_suffix,
    json_object,
    names_in,
    text_lines,
)
from gensr.data.split import SPELLINGS, Split
from gensr.data.tasks import Task
from gensr.errors import BadInputError

CORPUS = ("corpus.jsonl", "collection.tsv", "corpus.tsv")
TEXT_SUFFIXES = (".jsonl", ".tsv")
PAIRS = pa.schema([("query_id", pa.string()), ("item_id", pa.string()), ("split", pa.int8()), ("line", pa.int64())])
QUERIES = pa.schema([("query_id", pa.string()), ("query", pa.string()), ("line", pa.int64())])
DOCUMENTS = pa.schema([("item_id", pa.string()), ("title", pa.string()), ("line", pa.int64())])


@dataclass(frozen=True)
class Files:
    """The files of a collection; judgements with what they are for, training first."""

    corpus: Path
    queries: tuple[Path, ...]
    qrels: tuple[tuple[Split, Path], ...]


def read_log(config: BeirConfig) -> EventLog:
    """The relevant pairs of the collection as search events at time 0, with the column ``split``.

    Raises:
        BadInputError: a file is missing or broken, judgements are of no known form, or nothing relevant is left.
    """
    files, dropped = find_files(config), Dropped()
    rows: dict[str, int] = {}
    pairs, weak = [], 0
    for split, path in files.qrels:
        found, below = _read_qrels(path, split, config.min_score, dropped, rows)
        pairs.append(found)
        weak += below
    wanted = set(pa.concat_tables(pairs)["item_id"].unique().to_pylist())
    queries = _read_queries(files.queries, dropped, rows)
    items, documents = _read_documents(files.corpus, config, wanted, dropped, rows)
    kept = [
        _known(table, path, queries, items, files, dropped) for table, (_, path) in zip(pairs, files.qrels, strict=True)
    ]
    again = "judged again in another file of the same split"
    events = _first_of_each(pa.concat_tables(kept), ["query_id", "item_id", "split"], again, dropped)
    if not events.num_rows:
        why = dropped.reasons() or "No judgement stands in the files"
        raise BadInputError(
            f"{config.path}: no relevant pair is left. {why}; judged below min_score {config.min_score}: {weak:,}"
        )
    events = events.append_column(
        "query", queries["query"].take(pc.index_in(events["query_id"], value_set=queries["query_id"].combine_chunks()))
    )
    report = {
        "files": rows,
        "dropped": dropped.report(),
        "pairs": _count_pairs(events) | {"judged_below_min_score": weak},
        "queries": _used(events["query_id"], queries.num_rows),
        "documents": _used(events["item_id"], items.num_rows) | documents,
        "users": "none: every query stands in for its own",
    }
    items = items.append_column("categories", pa.nulls(items.num_rows, pa.string())).select(ITEMS.names)
    return check_log(_events(events), items, report, time_unit="none")


def identity(config: BeirConfig) -> str:
    """Hash of the options and of the files' content, what each file is for included."""
    files = find_files(config)
    options = config.model_dump_json(exclude={"path", "corpus", "queries", "qrels"})
    uses = [len(files.queries), *(int(split) for split, _ in files.qrels)]
    return content_hash(f"{options}{uses}", [files.corpus, *files.queries, *(path for _, path in files.qrels)])


def recognise(path: Path) -> Path | None:
    """The folder at `path`, if it holds a collection's files under their published names."""
    names = names_in(path)
    queries, qrels = (any(word in name for name in names) for word in ("queries", "qrels"))
    return path if queries and qrels and not names.isdisjoint(CORPUS) else None


def find_files(config: BeirConfig) -> Files:
    """Where documents, queries and judgements lie, by the options or by their published names.

    Raises:
        BadInputError: one kind is missing, or a file's name does not say what its judgements are for.
    """
    folder = Path(config.path)
    if config.corpus is not None:
        corpus = existing(folder / config.corpus, "data.source.corpus")
    else:
        corpus = find_file(folder, *CORPUS)
    queries = tuple(existing(folder / name, "data.source.queries") for name in config.queries)
    return Files(corpus, queries or _queries_in(folder), tuple(sorted(_qrels_in(folder, config))))


def _queries_in(folder: Path) -> tuple[Path, ...]:
    found = find_optional(folder, "queries.jsonl", "queries.tsv")
    if found is not None:
        return (found,)
    parts = [path for path in folder.glob("queries*") if path.is_file() and format_suffix(path) in TEXT_SUFFIXES]
    return tuple(sorted(parts)) or (find_file(folder, "queries.jsonl", "queries.tsv"),)


def _qrels_in(folder: Path, config: BeirConfig) -> Iterator[tuple[Split, Path]]:
    if config.qrels:
        for name, file in config.qrels.items():
            yield SPELLINGS[name], existing(folder / file, f"data.source.qrels.{name}")
        return
    inside = folder / "qrels"
    found = [path for path in (inside if inside.is_dir() else folder).iterdir() if path.is_file()]
    if not inside.is_dir():
        found = [path for path in found if "qrels" in path.name.lower()]
    found = [path for path in found if not path.name.startswith(".")]
    if not found:
        raise BadInputError(
            f"data.source.path: no judgements in {folder}: expected qrels/test.tsv or a file with qrels in its name; "
            'name others in data.source.qrels: {"test": "..."}'
        )
    for path in found:
        words = re.split(r"[^a-z]+", path.name.lower())
        splits = {SPELLINGS[word] for word in words if word in SPELLINGS}
        if len(splits) != 1:
            raise BadInputError(
                f"{path}: its name does not say whether it is train, dev or test; say it in data.source.qrels: "
                f'{{"test": "{path.relative_to(folder)}"}}'
            )
        yield splits.pop(), path


def _read_qrels(
    path: Path, split: Split, min_score: int, dropped: Dropped, rows: dict[str, int]
) -> tuple[pa.Table, int]:
    """Relevant pairs of `PAIRS`, and how many were judged below `min_score`.

    The columns are ``query-id corpus-id score`` as in BEIR, or ``query 0 document score`` as in TREC; the first line
    decides.
    """
    builder, below, count, width = TableBuilder(PAIRS), 0, 0, 0
    for line, text in text_lines(path):
        cells = [cell.strip() for cell in text.split("\t")] if "\t" in text else text.split()
        if not any(cells):
            continue
        if not width:
            width = len(cells)
            if width not in (3, 4):
                raise BadInputError(
                    f"{path}: line {line} has {width} columns; expected 3 (query-id, corpus-id, score) or 4 (query, 0, "
                    "document, score), separated by tabs or spaces"
                )
            if cells[0].lower().startswith(("query", "qid")) and _score(cells[-1]) is None:
                continue
        count += 1
        score = _score(cells[-1])
        if len(cells) != width:
            dropped.add(f"{_name(path)}: not {width} columns", line)
        elif score is None:
            dropped.add(f"{_name(path)}: a score that is no number", line)
        elif score < min_score:
            below += 1
        else:
            builder.add(cells[0], cells[-2], int(split), line)
    rows[_name(path)] = count
    return _first_of_each(builder.table(), ["query_id", "item_id"], f"{_name(path)}: judged twice", dropped), below


def _name(path: Path) -> str:
    """A file of judgements in reports: ``qrels/test.tsv``, for ``test.tsv`` alone says little."""
    return f"qrels/{path.name}" if path.parent.name == "qrels" else path.name


def _score(text: str) -> float | None:
    try:
        score = float(text)
    except ValueError:
        return None
    return score if math.isfinite(score) else None


def _read_queries(paths: tuple[Path, ...], dropped: Dropped, rows: dict[str, int]) -> pa.Table:
    """All queries of `QUERIES`; several files may hold the same one."""
    tables = []
    for path in paths:
        builder, count = TableBuilder(QUERIES), 0
        for line, key, _, text in _texts(path, dropped):
            count += 1
            query = normalise_query(text)
            if query:
                builder.add(key, query, line)
            else:
                dropped.add(f"{path.name}: a query without text", line)
        rows[path.name] = count
        tables.append(_first_of_each(builder.table(), ["query_id"], f"{path.name}: a query id again", dropped))
    return _first_of_each(pa.concat_tables(tables), ["query_id"], "a query id again in another file", Dropped())


def _read_documents(
    path: Path, config: BeirConfig, wanted: set[str], dropped: Dropped, rows: dict[str, int]
) -> tuple[pa.Table, dict[str, int]]:
    """The catalogue, of `DOCUMENTS`, and what happened to the texts."""
    builder, count, cut = TableBuilder(DOCUMENTS), 0, 0
    for line, key, title, text in _texts(path, dropped):
        count += 1
        if config.all_items or key in wanted:
            whole = f"{title} {text}" if config.text == "title_and_text" else title
            words = whole.split(None, config.max_words)  # what follows the last word stays unsplit
            cut += len(words) > config.max_words
            builder.add(key, " ".join(words[: config.max_words]), line)
    rows[path.name] = count
    table = _first_of_each(builder.table(), ["item_id"], f"{path.name}: a document id again", dropped)
    empty = int(pc.sum(pc.equal(table["title"], "")).as_py() or 0)
    if table.num_rows and empty == table.num_rows:
        advice = 'a title; set data.source.text: "title_and_text"' if config.text == "title" else "a text"
        raise BadInputError(f"{path}: no document has {advice}")
    return table, {"without_text": empty, f"cut_to_{config.max_words}_words": cut}


def _texts(path: Path, dropped: Dropped) -> Iterator[tuple[int, str, str, str]]:
    """Line number, id, title and text of every line of a .jsonl file or of lines ``id<TAB>text``, bad ones counted."""
    read = _json_line if format_suffix(path) == ".jsonl" else _tsv_line
    for line, written in text_lines(path):
        found = read(written)
        if isinstance(found, str):
            dropped.add(f"{path.name}: {found}", line)
        else:
            yield line, *found


def _tsv_line(line: str) -> tuple[str, str, str] | str:
    key, tab, text = line.partition("\t")
    return (key.strip(), "", text) if tab and key.strip() else "not id<TAB>text"


def _json_line(line: str) -> tuple[str, str, str] | str:
    """Id, title and text, or what is wrong with the line."""
    entry = json_object(line)
    if entry is None:
        return "no JSON object"
    key, title, text = entry.get("_id"), entry.get("title") or "", entry.get("text") or ""
    key = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
    if not isinstance(key, str) or not key.strip():
        return "no _id"
    if not isinstance(title, str) or not isinstance(text, str):
        return "a title or text that is no text"
    return (key.strip(), title, text) if encodable(key + title + text) else "half a Unicode character"


def _first_of_each(table: pa.Table, keys: list[str], reason: str, dropped: Dropped) -> pa.Table:
    """The rows that are the first with their `keys`; the others are dropped, by their ``line``."""
    table = table.append_column("row", pa.array(np.arange(table.num_rows)))
    first = np.sort(table.group_by(keys).aggregate([("row", "min")])["row_min"].to_numpy())
    again = np.setdiff1d(table["row"].to_numpy(), first, assume_unique=True)
    dropped.add_lines(reason, table["line"].to_numpy()[again[:SHOWN_LINES]].tolist(), len(again))
    return table.take(pa.array(first)).drop_columns(["row"]) if len(again) else table.drop_columns(["row"])


def _known(pairs: pa.Table, path: Path, queries: pa.Table, items: pa.Table, files: Files, dropped: Dropped) -> pa.Table:
    """The pairs of the judgements at `path` whose query and document exist."""
    for name, known, where in (
        ("query_id", queries, "the queries"),
        ("item_id", items, files.corpus.name),
    ):
        there = pc.is_in(pairs[name], value_set=known[name].combine_chunks())
        missing = pairs.filter(pc.invert(there))["line"]
        reason = f"{_name(path)}: {name.removesuffix('_id').replace('item', 'document')} not in {where}"
        dropped.add_lines(reason, missing[:SHOWN_LINES].to_pylist(), len(missing))
        pairs = pairs.filter(there)
    return pairs


def _events(pairs: pa.Table) -> pa.Table:
    count = pairs.num_rows
    return pa.table(
        {
            "user_id": pairs["query_id"],
            "item_id": pairs["item_id"],
            "timestamp": pa.array(np.zeros(count, np.int64)),
            "task": pa.array(np.full(count, Task.SEARCH, np.int8)),
            "query": pairs["query"],
            "split": pairs["split"],
        }
    )


def _count_pairs(events: pa.Table) -> dict[str, int]:
    """Relevant pairs by split; and how many stand in more than one of them, which is a leak."""
    counts = np.bincount(events["split"].to_numpy(), minlength=len(Split))
    distinct = events.group_by(["query_id", "item_id"]).aggregate([]).num_rows
    by_split = {split.label: int(counts[split]) for split in Split if counts[split]}
    return by_split | {"also_in_another_split": events.num_rows - distinct}


def _used(ids: pa.ChunkedArray, rows: int) -> dict[str, int]:
    judged = pc.count_distinct(ids).as_py()
    return {"with_a_relevant_pair": judged, "without": rows - judged}
