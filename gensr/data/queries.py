"""Search queries imitated by the category paths of the items: how logs without searches get some.

A review proves a purchase, and what a shopper typed before it is imitated by the place of the item in the shop: the
words of one category hierarchy, without stop words and repetitions (Van Gysel et al., CIKM 2016; Ai et al., SIGIR
2017). Pure functions; the sources decide which events the queries become.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from gensr.errors import BadInputError, MissingExtraError

Wording = Literal["published", "readable"]
"""How names become words.

published: what is no ASCII letter or blank vanishes, as in the papers: ``Self-Help`` is ``selfhelp``, ``MP3`` ``mp``.
readable: all but letters and digits divides words, an apostrophe vanishes, single characters are dropped: ``self
help``, ``mp3``. What other collections made of the same paths, and what a text encoder reads better.
"""

STOP_WORDS = frozenset(
    """
    a an the this that these those such
    i me my mine we us our ours you your yours he him his she her hers
    it its they them their theirs own who whom whose which what whoever whatever whichever
    someone somebody something anyone anybody anything everyone everybody everything nobody nothing none
    about above across after against along among amongst around as at before behind below beneath beside besides
    between beyond by despite down during except for from in inside into like near of off on onto out outside over per
    since through throughout till to toward towards under underneath until unto up upon via with within without
    and but or nor so yet if because although though unless whereas whether while than then else either neither both
    am is are was were be been being do does did doing done have has had having will would shall should can could may
    might must ought cannot
    all any each every few fewer less least many more most much other others another several some same enough
    not no very too also just only even still again ever never here there where when why how however therefore thus
    hence already almost always often quite rather etc
    """.split()
)
"""English function words. The published files were made with the list of the INQUERY retrieval system, which any source
here takes as a file instead: `read_stop_words`."""

APOSTROPHES = str.maketrans("", "", "'’ʼ`")


def hierarchies(categories: str) -> list[list[str]]:
    """Levels of each hierarchy of a `categories` text: ``|`` between levels, ``||`` between hierarchies.

    Example:
        >>> hierarchies("Books|Self-Help||Books")
        [['Books', 'Self-Help'], ['Books']]
    """
    paths = ([level.strip() for level in path.split("|")] for path in categories.split("||"))
    return [levels for path in paths if (levels := [level for level in path if level])]


def words_of(text: str, wording: Wording = "published") -> list[str]:
    """Lower-case words of a name; see `Wording`."""
    if wording == "published":
        return re.sub(r"[^A-Za-z\s]", "", text).lower().split()
    return [word for word in re.findall(r"[^\W_]+", text.translate(APOSTROPHES).lower()) if len(word) > 1]


def topic(
    levels: Sequence[str],
    *,
    stop_words: frozenset[str] = STOP_WORDS,
    stem: Callable[[str], str] | None = None,
    vocabulary: Container[str] | None = None,
    wording: Wording = "published",
) -> str:
    """The topic string of one hierarchy: what stands for the query of a shopper who wanted its items.

    In this order: all levels joined; words (`words_of`); words that are a stop word or the stem of one dropped, which
    is asked of the word before stemming; stemmed; words outside `vocabulary` dropped; of equal words the last one kept,
    in its place.

    Args:
        levels: names from coarse to fine.
        stop_words: lower-case words.
        stem: maps a word to its stem; absent, words stay as they are.
        vocabulary: the stems that count, such as those of the reviews; absent, all do.
        wording: how names become words.

    Example:
        >>> topic(["Camera & Photo", "Digital Camera Lenses"])
        'photo digital camera lenses'
    """
    stopped = _with_stems(stop_words, stem)
    words = [word for word in words_of(" ".join(levels), wording) if word not in stopped]
    stems = words if stem is None else [stem(word) for word in words]
    known = stems if vocabulary is None else [word for word in stems if word in vocabulary]
    return " ".join(reversed(dict.fromkeys(reversed(known))))


def item_queries(
    categories: str,
    *,
    min_levels: int = 2,
    stop_words: frozenset[str] = STOP_WORDS,
    stem: Callable[[str], str] | None = None,
    vocabulary: Container[str] | None = None,
    wording: Wording = "published",
) -> list[str]:
    """Distinct topic strings of an item, in the order of its hierarchies; those of too few levels give none.

    Args:
        categories: as `hierarchies` reads them.
        min_levels: fewest levels of a hierarchy that gives a query; a single one is too general.
        stop_words: see `topic`.
        stem: see `topic`.
        vocabulary: see `topic`.
        wording: see `topic`.
    """
    topics = (
        topic(levels, stop_words=stop_words, stem=stem, vocabulary=vocabulary, wording=wording)
        for levels in hierarchies(categories)
        if len(levels) >= min_levels
    )
    return list(dict.fromkeys(text for text in topics if text))


@lru_cache(maxsize=8)
def _with_stems(stop_words: frozenset[str], stem: Callable[[str], str] | None) -> frozenset[str]:
    return stop_words if stem is None else stop_words | {stem(word) for word in stop_words}


def read_stop_words(path: Path | str, option: str = "data.source.stop_words") -> frozenset[str]:
    """A list of one's own from a text file, one word a line.

    Raises:
        BadInputError: no such file, a line of several words, or none at all.
    """
    from gensr.data.sources.text import existing, text_lines

    path, found = existing(path, option), set()
    for line, text in text_lines(path):
        words = text.split()
        if len(words) > 1:
            raise BadInputError(f"{path}: line {line} holds {text[:60]!r}; expected one stop word a line")
        found.update(words_of(text))
    if not found:
        raise BadInputError(f"{path} holds no stop words; expected one a line")
    return frozenset(found)


def krovetz() -> Callable[[str], str]:
    """The stemmer of the published queries (Krovetz, SIGIR 1993): ``ebooks`` is ``ebook``, ``books`` stays.

    Raises:
        MissingExtraError: its package is not installed.
    """
    try:
        from krovetzstemmer import Stemmer  # type: ignore[import-not-found]
    except ImportError:
        raise MissingExtraError("krovetzstemmer", "krovetz", "the Krovetz stemmer") from None
    stemmer = Stemmer()
    return lru_cache(maxsize=1 << 18)(lambda word: str(stemmer.stem(word)))
