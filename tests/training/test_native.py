"""What published recipes need of the one trainer: Adam with L2, plateaus, a metric, and settings of a ranker."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from gensr.edits import apply_edits, drop, parse_set, parse_swap, set_value, swap
from gensr.errors import BadInputError
from gensr.rankers.peers import S3_TRAINING
from gensr.spec import TrainingSpec, load_spec
from gensr.training.optimizer import build_optimizer
from gensr.training.schedule import on_plateau
from tests.toy import digest, train_toy


def lines(folder, kind):
    found = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == kind]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_adds_decay_to_gradients_and_adamw_takes_it_from_weights(name):
    model = Model()
    spec = TrainingSpec(optimizer=name, weight_decay=0.5, learning_rate=0.1)
    optimizer = build_optimizer(model, spec)
    (0.0 * model.table.sum() + 0.0 * model.bias.sum()).backward()
    optimizer.step()
    # Adam's first step has the size of the step size whatever the gradient; AdamW multiplies by 1 - 0.1 * 0.5.
    expected = 0.9 if name == "adam" else 0.95
    torch.testing.assert_close(model.table.detach(), torch.full((2, 2), expected))
    torch.testing.assert_close(model.bias.detach(), torch.ones(2))  # vectors do not decay


def test_a_plateau_lowers_the_step_size_when_patience_is_used_up(tmp_path, data):
    scores = iter([0.5, 0.4, 0.4, 0.6, 0.1, 0.1, 0.1, 0.1])
    train_toy(
        tmp_path,
        data,
        schedule="plateau",
        plateau_patience=1,
        patience=0,
        epochs=8,
        warmup_steps=0,
        learning_rate=0.01,
        log_every=20,
        validate=lambda: {"ndcg@5": {"search": next(scores)}},
    )
    sizes = [line["learning_rate"] for line in lines(tmp_path, "train")]
    # Validations come after steps 20, 40, ...: two bad ones in a row are one more than patience bears.
    assert sizes == pytest.approx([1e-2, 1e-2, 1e-2, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4])


def test_a_plateau_that_was_interrupted_ends_like_one_that_was_not(tmp_path, data):
    options = {"schedule": "plateau", "plateau_patience": 0, "patience": 0, "epochs": 4, "learning_rate": 0.1}

    def flat():
        return {"ndcg@5": {"search": 0.5}}

    def interrupted(validations=iter([None, None])):  # noqa: B008  # two in all
        if next(validations, "over") == "over":
            raise KeyboardInterrupt
        return flat()

    whole, _ = train_toy(tmp_path / "whole", data, validate=flat, **options)
    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "cut", data, validate=interrupted, **options)
    resumed, result = train_toy(tmp_path / "cut", data, validate=flat, **options)
    assert result.resumed_from == 40
    assert digest(resumed) == digest(whole)


def test_the_step_size_falls_to_a_millionth_at_most():
    assert [on_plateau(1e-3, falls) for falls in (0, 1, 3, 9)] == pytest.approx([1e-3, 1e-4, 1e-6, 1e-6])
    assert on_plateau(1e-8, 2) == 1e-8


def test_the_metric_that_selects_is_an_option_and_the_curve_has_all(tmp_path, data):
    found = iter(
        [{"mrr": {"search": 0.2}, "ndcg@5": {"search": 0.9}}, {"mrr": {"search": 0.3}, "ndcg@5": {"search": 0.1}}]
    )
    _, result = train_toy(tmp_path, data, selection="mrr", epochs=2, patience=0, validate=lambda: next(found))
    assert (result.selection, result.best, result.best_step) == ("mrr", 0.3, 40)
    assert [line["ndcg@5"]["mean"] for line in lines(tmp_path, "validation")] == [0.9, 0.1]


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(BadInputError, match=r"training.selection: .*'hit@5'"):
        load_spec({"training": {"selection": "hit@5"}})


def test_gradients_are_clipped_only_where_a_norm_is_given(tmp_path, data):
    options = {"epochs": 1, "learning_rate": 0.1}
    loose, tight = (train_toy(tmp_path / str(n), data, clip_norm=n, **options)[0] for n in (1e9, 1e-3))
    none = train_toy(tmp_path / "none", data, clip_norm=None, **options)[0]
    assert digest(none) == digest(loose) != digest(tight)


def test_a_ranker_brings_its_training_settings_and_what_the_spec_says_wins():
    spec = load_spec({"ranker": "sasrec", "training": {"epochs": 3}})
    assert spec.training == TrainingSpec(**S3_TRAINING | {"epochs": 3})
    assert load_spec({"ranker": {"type": "sasrec"}}).training.selection == "mrr"
    assert load_spec({}).training == TrainingSpec()


def test_a_filled_spec_reads_as_itself():
    spec = load_spec({"ranker": "sasrec", "training": {"epochs": 3}})
    again = load_spec(json.loads(spec.to_json()))
    assert (again, again.fingerprint()) == (spec, spec.fingerprint())


def test_settings_of_a_ranker_leave_with_it_and_those_of_the_spec_stay():
    spec = swap(load_spec({"training": {"epochs": 3}}), "ranker", "sasrec")
    assert spec.training == TrainingSpec(**S3_TRAINING | {"epochs": 3})
    assert swap(spec, "ranker", "gensr").training == TrainingSpec(epochs=3)
    assert set_value(spec, "ranker.dim", 32).training == spec.training
    assert drop(load_spec({"training": {"epochs": 3}}), "soft_filter").training == TrainingSpec(epochs=3)


def test_what_is_set_beside_a_swap_of_the_ranker_stays_whatever_it_was_before():
    usual = str(TrainingSpec().epochs)
    edits = [parse_set(f"training.epochs={usual}"), *parse_swap("ranker=sasrec")]
    for ordered in (edits, edits[::-1], [parse_set(f'training={{"epochs": {usual}}}'), edits[1]]):
        assert apply_edits(load_spec({}), ordered).training == TrainingSpec(**S3_TRAINING | {"epochs": int(usual)})


@pytest.mark.parametrize(
    ("edits", "problem"),
    [
        (["ranker=null"], "ranker: expected a ranker"),
        (["ranker=5"], "ranker: expected a ranker"),
        (['ranker={"dim": 3}'], "ranker: expected a ranker"),
        (["training=5", "ranker=sasrec"], "training: Input should be a valid dictionary"),
        (['training={"epoch": 5}', "ranker=sasrec"], "training.epoch: no option 'epoch'; did you mean 'epochs'"),
    ],
)
def test_a_ranker_or_a_training_section_that_is_none_is_told(edits, problem):
    with pytest.raises(BadInputError, match=problem):
        apply_edits(load_spec({}), [parse_set(edit) for edit in edits])


@pytest.mark.parametrize("ranker", ["gensr", "sasrec"])
@pytest.mark.parametrize("training", [None, [], 0])
def test_a_training_section_that_is_no_object_is_refused_whatever_the_ranker(ranker, training):
    with pytest.raises(BadInputError, match="training: Input should be a valid dictionary"):
        load_spec({"ranker": ranker, "training": training})
