"""One display over builds, each of which makes its own."""

from __future__ import annotations

from rich.console import Console

from gensr.progress import Progress


def titles(display):
    return [task.description for task in display.tasks]


def test_bars_of_what_runs_inside_stand_beneath_the_overall_bar_and_go_when_they_end(monkeypatch):
    outer = Progress()
    displays, make = [], Progress._display
    monkeypatch.setattr(Progress, "_display", lambda self: displays.append(make(self)) or displays[-1])
    with outer.overall("ablation", total=2) as bar:
        bar.say("base")
        inner = Progress()
        with inner.bar("training", 10), inner.bar("LightGCN", 3):
            assert titles(displays[0]) == ["ablation", "  training", "  LightGCN"]
        assert titles(displays[0]) == ["ablation"]
        bar.advance()
        assert displays[0].tasks[0].completed == 1
    assert len(displays) == 1
    with Progress().bar("alone", 1):
        assert len(displays) == 2


def test_notes_of_what_runs_inside_are_indented_and_records_are_not_shown(capsys, tmp_path):
    outer = Progress()
    outer.log_to(tmp_path / "log.txt")
    with outer.overall("ablation", total=1):
        outer.note("[run 1/1] base")
        Progress().note("training")
        Progress(enabled=False).note("unseen")
        outer.record("a traceback")
    assert capsys.readouterr().err == "[run 1/1] base\n  training\n"
    assert [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == [
        "[run 1/1] base",
        "a traceback",
    ]


def test_on_a_terminal_the_overall_bar_tells_its_own_rest_and_the_others_their_eta(monkeypatch):
    outer = Progress()
    outer._console = Console(force_terminal=True, width=120, record=True, stderr=True)
    with outer.overall("ablation", total=2) as bar:
        bar.say("base [seed 42], about 3 min to go")
        with Progress().bar("training", 10):
            shown = outer._console
            display = Progress()._above
            shown.print(display)
            text = shown.export_text()
    assert "base [seed 42], about 3 min to go" in text
    assert text.count("eta") >= 1
    assert "eta" not in next(line for line in text.splitlines() if line.startswith("ablation"))
