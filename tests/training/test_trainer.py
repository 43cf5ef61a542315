import json
import math
import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest
import torch

from gensr.errors import BadInputError, GensrError
from gensr.training.trainer import binary_entropy
from tests.toy import digest, run_to_file, train_toy


def curve(folder, *, timeless=True):
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    timed = ("rows_per_second", "requests_per_second") if timeless else ()
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def steps(folder):
    return sorted(int(p.name.removeprefix("step-")) for p in (folder / "checkpoints").glob("step-*"))


def test_two_runs_of_one_seed_are_equal_and_two_seeds_differ(tmp_path, data):
    first, again, other = (
        train_toy(tmp_path / name, data, seed=seed)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert digest(first) == digest(again)
    assert digest(first) != digest(other)
    assert curve(tmp_path / "a") == curve(tmp_path / "b")


def test_what_others_draw_from_the_global_generators_does_not_matter(tmp_path, data):
    def disturbing():
        torch.rand(7)
        np.random.rand(3)
        return {"ndcg@5": {"search": 0.5}}

    calm = train_toy(tmp_path / "a", data, validate=lambda: {"ndcg@5": {"search": 0.5}})[0]
    disturbed = train_toy(tmp_path / "b", data, validate=disturbing)[0]
    assert digest(calm) == digest(disturbed)


def test_training_leaves_global_generators_and_flags_as_they_were(tmp_path, data):
    torch.manual_seed(5)
    before = torch.get_rng_state().clone(), np.random.get_state()[1].copy()
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    train_toy(tmp_path, data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert not torch.are_deterministic_algorithms_enabled()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers


def test_the_loss_falls_below_what_knowing_the_base_rate_gives(tmp_path, data):
    train_toy(tmp_path, data, epochs=10, patience=0)
    lines = [line for line in curve(tmp_path) if line["kind"] == "train"]
    assert lines[-1]["losses"]["task"] < lines[-1]["base_rate_entropy"] < lines[0]["losses"]["task"]


def test_a_line_of_the_curve_holds_all_there_is_to_see(tmp_path, data):
    train_toy(tmp_path, data)
    lines = curve(tmp_path, timeless=False)
    train, validation = ([line for line in lines if line["kind"] == kind] for kind in ("train", "validation"))
    assert set(train[0]) == {
        "kind", "step", "epoch", "losses", "base_rate_entropy", "grad_norm", "learning_rate", "rows_per_second",
        "requests_per_second",
    }  # fmt: skip
    assert train[0]["base_rate_entropy"] == pytest.approx(-0.2 * math.log(0.2) - 0.8 * math.log(0.8), abs=1e-6)
    assert [line["step"] for line in train] == list(range(5, 61, 5))
    assert [line["step"] for line in validation] == [20, 40, 60]
    assert set(validation[0]["ndcg@5"]) == {"search", "recommendation", "mean"}
    assert all(math.isfinite(line["grad_norm"]) for line in train)


def test_binary_entropy_of_a_fair_coin_is_ln_2():
    assert binary_entropy(0.5) == pytest.approx(math.log(2))


def test_frozen_parameters_do_not_move(tmp_path, data):
    ranker, _ = train_toy(tmp_path, data, weight_decay=0.1)
    assert torch.equal(ranker.frozen, torch.ones(3))


def test_only_tensors_of_two_or_more_dimensions_decay(tmp_path, data):
    settings = {"epochs": 1, "max_steps": 1, "warmup_steps": 0, "schedule": "constant"}
    plain = train_toy(tmp_path / "a", data, weight_decay=0.0, **settings)[0]
    decayed = train_toy(tmp_path / "b", data, weight_decay=0.5, **settings)[0]
    assert torch.equal(plain.bias, decayed.bias)
    untouched = plain.items[-1]  # no gradient ever reaches the row of unknown items
    assert torch.allclose(decayed.items[-1], untouched * (1 - 0.02 * 0.5))


def test_bfloat16_trains_weights_that_stay_float32(tmp_path, data):
    ranker, result = train_toy(tmp_path, data, precision="bf16")
    assert {p.dtype for p in ranker.parameters()} == {torch.float32}
    assert math.isfinite(result.best)
    # Precision is no state of the process: full precision still works afterwards.
    assert digest(train_toy(tmp_path / "a", data)[0]) == digest(train_toy(tmp_path / "b", data)[0])


def test_validation_scores_in_float32_whatever_training_does(tmp_path, data):
    seen = []

    def validate():
        seen.append(torch.is_autocast_enabled("cpu"))
        return {"ndcg@5": {"search": 0.5}}

    train_toy(tmp_path, data, precision="bf16", max_steps=2, validate=validate)
    assert seen == [False]


def test_fp16_is_refused_with_the_reason(tmp_path, data):
    with pytest.raises(BadInputError, match="fp16 needs loss scaling"):
        train_toy(tmp_path, data, precision="fp16")


def test_training_stops_early_and_keeps_the_best_weights(tmp_path, data):
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.9])
    seen = {}

    def validate():
        step = steps(tmp_path)[-1] if (tmp_path / "checkpoints").exists() and steps(tmp_path) else 0
        score = next(scores)
        seen[score] = step
        return {"ndcg@5": {"search": score - 0.05, "recommendation": score + 0.05}}

    ranker, result = train_toy(tmp_path, data, epochs=9, patience=2, validate=validate)
    assert (result.stopped, result.best_step, result.steps) == ("patience", 40, 80)
    assert result.best == pytest.approx(0.5)
    assert 40 in steps(tmp_path)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "checkpoints/step-40/model.safetensors")
    assert torch.equal(stored["items"], ranker.items)
    assert next(scores) == 0.9  # the validation after the stop never ran


def test_patience_zero_never_stops(tmp_path, data):
    _, result = train_toy(tmp_path, data, patience=0, epochs=4, validate=lambda: {"ndcg@5": {"search": 0.0}})
    assert (result.stopped, result.steps, result.best_step) == ("epochs", 80, 20)


def test_max_steps_ends_training_inside_an_epoch_and_validates_there(tmp_path, data):
    _, result = train_toy(tmp_path, data, max_steps=27)
    assert (result.stopped, result.steps) == ("max_steps", 27)
    assert curve(tmp_path)[-1]["kind"] == "validation"
    assert curve(tmp_path)[-1]["step"] == 27


def test_a_loss_that_is_not_finite_stops_with_step_epoch_and_requests_and_spares_the_checkpoint(tmp_path, data):
    after_measuring_memory = 2  # losses of small batches, before the first update
    with pytest.raises(GensrError) as error:
        train_toy(tmp_path, data, ranker={"nan_at": after_measuring_memory + 32}, checkpoint_every=10)
    text = str(error.value)
    assert "at step 32 (epoch 1)" in text
    assert "loss nan" in text
    assert "and 11 more" in text
    assert "the checkpoint of step 30 is intact" in text
    assert steps(tmp_path)[-1] == 30
    _, result = train_toy(tmp_path, data, checkpoint_every=10, resume=False)
    assert result.resumed_from is None
    assert steps(tmp_path)[-1] == 60


def test_an_interrupted_training_ends_like_an_uninterrupted_one(tmp_path, data):
    options = {"epochs": 4, "checkpoint_every": 7, "evaluate_every": 13, "patience": 0}
    whole, expected = train_toy(tmp_path / "whole", data, **options)

    class PowerCutError(Exception):
        pass

    def cut():
        raise PowerCutError

    for _ in range(2):  # each dies at the first validation after its checkpoint of step 7, 14, ...
        with pytest.raises(PowerCutError):
            train_toy(tmp_path / "cut", data, validate=cut, **options)
    with (tmp_path / "cut/history.jsonl").open("a") as file:
        file.write('{"kind": "train", "step": 9999}\n{"kind": "tr')  # as a killed process may leave it
    resumed, result = train_toy(tmp_path / "cut", data, **options)
    assert result.resumed_from == 7
    assert digest(resumed) == digest(whole)
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole")
    assert (result.best, result.best_step, result.steps) == (expected.best, expected.best_step, expected.steps)


def test_sigterm_is_heeded_at_a_step_boundary_with_a_checkpoint(tmp_path, data):
    train_toy(tmp_path / "whole", data, evaluate_every=9, patience=0)

    def terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        return {"ndcg@5": {"search": 0.3, "recommendation": 0.3}}

    with pytest.raises(KeyboardInterrupt, match="interrupted at step 9"):
        train_toy(tmp_path / "cut", data, evaluate_every=9, patience=0, validate=terminated)
    assert steps(tmp_path / "cut") == [9]
    train_toy(tmp_path / "cut", data, evaluate_every=9, patience=0, validate=lambda: {"ndcg@5": {"search": 0.9}})
    # The weights along the way are the same; which of them is best was scripted.
    from safetensors.torch import load_file

    ends = [load_file(tmp_path / name / "checkpoints/step-60/model.safetensors")["items"] for name in ("whole", "cut")]
    assert torch.equal(*ends)


def test_a_finished_training_is_not_repeated(tmp_path, data):
    ranker, _ = train_toy(tmp_path, data)
    before = (tmp_path / "history.jsonl").read_text()
    again, result = train_toy(tmp_path, data)
    assert digest(again) == digest(ranker)
    assert (result.resumed_from, result.rows_per_second) == (60, None)
    assert (tmp_path / "history.jsonl").read_text() == before


def test_a_checkpoint_of_another_spec_is_refused_until_told_to_begin_anew(tmp_path, data):
    train_toy(tmp_path, data, max_steps=5)
    with pytest.raises(BadInputError, match="belongs to another spec"):
        train_toy(tmp_path, data, max_steps=6)
    assert train_toy(tmp_path, data, max_steps=6, resume=False)[1].steps == 6


def test_killed_at_any_moment_and_resumed_the_weights_are_those_of_an_uninterrupted_run(tmp_path, data):
    # Small steps, many checkpoints: most kills fall into the writing of one. The forkserver imports torch once.
    options = {"epochs": 8, "checkpoint_every": 3, "evaluate_every": 50, "patience": 0}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.toy", "accelerate", "torch._dynamo"])
    whole, _ = train_toy(tmp_path / "whole", data, **options)
    folder, rng = tmp_path / "killed", random.Random(0)
    kills = 0
    while True:
        process = context.Process(target=run_to_file, args=(folder, data), kwargs=options)
        process.start()
        before = steps(folder)
        while process.is_alive() and steps(folder) == before:  # until it gets somewhere
            time.sleep(0.002)
        process.join(timeout=rng.uniform(0.0, 0.06) if kills < 4 else None)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0
    assert kills >= 2
    assert (folder / "digest").read_text() == digest(whole)
    assert curve(folder) == curve(tmp_path / "whole")
