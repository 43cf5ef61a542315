import os
import signal

import pytest

from gensr.training.sitting import Curve, Interrupt


def test_a_first_signal_is_a_wish_and_a_second_one_is_immediate():
    with Interrupt() as interrupt:
        assert not interrupt.wished
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.wished
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_cutting_a_curve_drops_later_lines_and_half_a_line(tmp_path):
    curve = Curve(tmp_path / "history.jsonl")
    for step in (1, 2, 3):
        curve.write(step=step)
    with curve.path.open("a") as file:
        file.write('{"step": 1')
    curve.cut(2)
    assert curve.path.read_text() == '{"step": 1}\n{"step": 2}\n'
