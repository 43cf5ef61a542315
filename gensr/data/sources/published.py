"""Where a published log comes from: the sources that read files as their authors release them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from gensr.data.sources.config import SOURCES, FileSourceConfig, TimeZone

Divided = Literal["train", "valid", "test"]
Column = Literal["user_id", "item_id", "timestamp", "task", "query", "title", "categories"]


@SOURCES.register
class BeirConfig(FileSourceConfig):
    """A test collection, search only: documents, queries and judgements in the files of BEIR or of a TREC track.

    Every relevant pair is one event at time 0. Nobody stands behind a query, so its user is the query itself and its
    history is empty; the judgement files say what trains and what tests: use `data.split: "given"`.
    """

    type: Literal["beir"] = "beir"
    reference: ClassVar[str] = "Thakur et al., BEIR, NeurIPS 2021 (Datasets and Benchmarks)"
    path: str
    """Folder with `corpus.jsonl`, `queries.jsonl` and `qrels/{train,dev,test}.tsv`, or with `collection.tsv`,
    `queries*.tsv` and `*qrels*` files; each perhaps as .gz or .zst."""
    corpus: str | None = None
    """The file of documents in the folder, where it has another name: .jsonl, or `id<TAB>text`."""
    queries: tuple[str, ...] = ()
    """The files of queries in the folder, where they have other names: .jsonl, or `id<TAB>text`."""
    qrels: dict[Divided, str] = Field(default_factory=dict)
    """The files of judgements in the folder, where their names do not say what they are for:
    `{"test": "qrels.dl19.txt"}`."""
    text: Literal["title", "title_and_text"] = "title_and_text"
    """What an item's title is made of."""
    max_words: PositiveInt = 64
    """Words that are kept of it."""
    min_score: PositiveInt = 1
    """Least judgement that counts as relevant."""
    all_items: bool = True
    """Keep documents that no relevant pair names; without them the candidates are easier."""


@SOURCES.register
class KuaiSARConfig(FileSourceConfig):
    """KuaiSAR, search and feed of a short-video service: the published CSV files, its clicks as events.

    What the papers do on top belongs to the data section: `core` (both tasks, users and items with five events) and
    the split `by_day`.
    """

    type: Literal["kuaisar"] = "kuaisar"
    reference: ClassVar[str] = "Sun et al., KuaiSAR, CIKM 2023"
    path: str
    """Folder with `rec_inter.csv`, `src_inter.csv` and `item_features.csv`, perhaps also `user_features.csv` and
    `social_network.csv`; each perhaps as .gz or .zst."""
    item_types: tuple[Literal["VIDEO", "IMAGE_ATLAS", "USER", "LIVE", "COMMODITY", "MUSIC", "ADVERT"], ...] | None = (
        Field(("VIDEO", "IMAGE_ATLAS"), min_length=1)
    )
    """Types of search results whose clicks count, null for all; the feed shows no others than these two."""
    unclicked_sessions: Literal["drop", "first"] = "drop"
    """What becomes of a search without a click, about 40 % of them: `first` counts its first result as clicked,
    because it may have been watched without a click."""
    max_clicks: PositiveInt | None = 5
    """Clicks kept of one search, the first ones in the file; null for all."""
    category_names: Literal["english", "chinese", "id"] = "english"
    """How the levels of a category are called."""
    all_items: bool = False
    """Keep items of `item_features.csv` that no event names; of the published ones that is most."""


@SOURCES.register
class MovieLensConfig(FileSourceConfig):
    """MovieLens 100K, 1M, 10M, 20M, 25M, 32M or latest: ratings recommend, tags search."""

    type: Literal["movielens"] = "movielens"
    reference: ClassVar[str] = "Harper and Konstan, ACM TiiS 5(4), 2015"
    path: str
    """The unpacked folder: with `u.data`, `u.item` and `u.genre`; or `ratings.dat`, `movies.dat` and perhaps
    `tags.dat`; or `ratings.csv`, `movies.csv` and perhaps `tags.csv`; each perhaps as .gz or .zst."""
    min_rating: Annotated[float, Field(ge=0, le=5)] = 0.0
    """Least rating, of 0.5 to 5 stars, that makes a recommendation event; 0 takes all."""
    tags: bool = True
    """Whether applying a tag is a search event, with the tag as its query, also for a movie the user did not rate."""
    drop_tags: tuple[str, ...] = ("In Netflix queue",)
    """Tags that nobody would search for; case does not matter."""


@SOURCES.register
class RecBoleConfig(FileSourceConfig):
    """Atomic files of RecBole: `<name>.inter`, perhaps with `<name>.item` and `<name>.user`."""

    type: Literal["recbole"] = "recbole"
    reference: ClassVar[str] = "Zhao et al., RecBole, CIKM 2021; atomic files"
    path: str
    """The folder of one data set, or its `.inter` file. Files `<name>.train.inter`, `<name>.valid.inter` and
    `<name>.test.inter` bring their split with them: use `data.split: "given"`."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Fields that do not have usual names, without their type: `{"title": "app_name"}`."""
    order: Literal["timestamp", "file"] = "timestamp"
    """`file`: events happened in the order of the rows. That settles ties of timestamps, or stands in for them where
    there are none; but then not even two rows that are one interaction are hidden from each other."""
    sequence_separator: Annotated[str, Field(min_length=1)] = " "
    """What stands between the elements of sequence fields; RecBole's default is a space, some converters write
    `", "`."""
    quotes: bool = True
    """Whether `"` encloses cells, as RecBole reads them; false for files whose texts have stray quotation marks."""
    time_unit: Literal["auto", "s", "ms", "us", "ns", "none"] = "auto"
    """What timestamps count; `auto` recognises Unix times by their size."""
    time_zone: TimeZone = "UTC"
    """IANA name of the zone whose midnight divides days."""


@SOURCES.register
class AmazonConfig(FileSourceConfig):
    """Amazon reviews of 2014, 2018 or 2023 with their metadata; searches are made of the category paths.

    A review is a recommendation event and, where its item has a query, a search event of the same time and order: two
    faces of one purchase.
    """

    located_by: ClassVar[str] = "reviews"
    type: Literal["amazon"] = "amazon"
    reference: ClassVar[str] = "Ai et al., SIGIR 2017, and Van Gysel et al., CIKM 2016; reviews of McAuley et al."
    reviews: str
    """The file of reviews, such as `reviews_Kindle_Store_5.json.gz`; perhaps as .gz or .zst."""
    metadata: str | None = None
    """The file of items; absent, the one with the published name beside the reviews, such as
    `meta_Kindle_Store.json.gz`."""
    version: Literal["auto", "2014", "2018", "2023"] = "auto"
    """Which publication; its field names are recognised from the first review."""
    min_rating: float | None = None
    """Fewest stars of a review that counts; absent, all do, as in the papers."""
    all_items: bool = False
    """Keep items that nobody reviewed as candidates."""
    queries_per_review: Literal["one", "all"] = "one"
    """Whether a purchase of an item with several queries gives one search, drawn at random, or one for each."""
    keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the purchases with a query that give a search, drawn at random."""
    min_levels: PositiveInt = 2
    """Fewest levels of a category path that gives a query; a single one is too general."""
    wording: Literal["published", "readable"] = "published"
    """How names become words: as in the papers `Self-Help` is `selfhelp` and `MP3` is `mp`; readable, they are `self
    help` and `mp3`."""
    stemmer: Literal["none", "krovetz"] = "none"
    """`krovetz` as in the papers, where `ebooks` is `ebook`; needs the extra of that name."""
    stop_words: str | None = None
    """A file with one stop word a line, such as the INQUERY list of the papers; absent, a list of gensr's own."""
    min_count: NonNegativeInt = 0
    """Drops words that occur less often in the reviews; 5 in the papers. Reads the reviews twice."""
    seed: NonNegativeInt = 42
    """Draws the queries."""


@SOURCES.register
class ProductSearchConfig(FileSourceConfig):
    """The released Amazon product-search collections: their queries and relevant pairs, read as they are.

    Without the reviews they hold neither times nor purchases: every event happens at time 0 and histories are empty.
    The files say what trains and what tests: use `data.split: "given"`.
    """

    type: Literal["product_search"] = "product_search"
    reference: ClassVar[str] = "Ai et al., SIGIR 2017"
    path: str
    """Folder with `query_text.txt.gz` and `train.qrels.gz`, `test.qrels.gz` or both; perhaps also
    `train_review_id.txt.gz`."""
    reviews: str | None = None
    """The 5-core file of 2014 that the collection was made of, which `train_review_id.txt.gz` counts the lines of:
    gives times and purchases."""
    metadata: str | None = None
    """The metadata of 2014: gives titles and categories."""
    all_items: bool = False
    """Keep items of the metadata that no event names as candidates."""
