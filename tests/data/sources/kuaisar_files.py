"""KuaiSAR's files as they are published, a few lines of each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

NOON = 1_684_814_400_000
"""2023-05-23 12:00 in Beijing, in Unix ms."""
FEED_HEADER = (
    "user_id,item_id,playing_time,duration_ms,time,timestamp,click,forward,like,follow,search,search_item_related"
)
SEARCH_HEADER = (
    "user_id,search_session_id,search_session_time,search_session_timestamp,keyword,search_source,item_id,click_cnt,"
    "item_type"
)
ITEM_HEADER = "item_id,caption,author_id,item_type,upload_time,upload_type," + ",".join(
    f"{level}_level_category_{part}"
    for level in ("first", "second", "third", "fourth")
    for part in ("id", "name", "name_en")
)
LEVELLESS = ",".join(["0,empty,empty"] * 4)


def feed_row(user: object, item: int, time: int, *, click: int) -> str:
    return f"{user},{item},1200.0,9000.0,{_beijing(time)},{float(time)},{click},0,0,0,0,0"


def search_row(
    user: object, session: int, time: int, keyword: str, item: int, clicks: int, *, kind: str = "VIDEO"
) -> str:
    return f'{user},{session},{_beijing(time)},{float(time)},"{keyword}",USER_INPUT,{item},{clicks},{kind}'


def write_log(
    folder: Path, *, feed: list[str] | None = None, search: list[str] | None = None, items: list[str] | None = None
) -> None:
    """Write the files whose rows are given into `folder`."""
    for name, header, rows in (
        ("rec_inter.csv", FEED_HEADER, feed),
        ("src_inter.csv", SEARCH_HEADER, search),
        ("item_features.csv", ITEM_HEADER, items),
    ):
        if rows is not None:
            (folder / name).write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def _beijing(time: int) -> str:
    moment = datetime.fromtimestamp(time / 1000, UTC) + timedelta(hours=8)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
