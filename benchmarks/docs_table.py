"""Write the tables of docs/speed.md from the results in benchmarks/results.

python benchmarks/docs_table.py
"""

from __future__ import annotations

from pathlib import Path

from gensr.bench.report import read_result, tables
from gensr.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "speed.md", ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- tables: python benchmarks/docs_table.py -->", "<!-- end of tables -->"
NONE = "No results are stored yet."


def with_tables(page: str, results: Path = RESULTS) -> str:
    """`page` with everything between the markers made anew from the files ``bench-*.json``, in the order of names."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [f"### {path.stem}\n\n{tables(read_result(path))}" for path in sorted(results.glob("bench-*.json"))]
    return f"{before}{BEGIN}\n\n" + "\n\n".join(parts or [NONE]) + f"\n\n{END}{after}"


if __name__ == "__main__":
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
