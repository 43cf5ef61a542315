"""The released path and the library score and train the same model, and every case of the model's suites runs."""

from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace

import pytest
import torch

from gensr.bench.suites import decoder, scoring, training
from gensr.bench.workloads import SEGMENTS, SHAPES, TOKENS, Workload, find_shape, one_at_a_time, require_equal
from gensr.data.tasks import Task
from gensr.errors import BadInputError, GensrError
from gensr.spec import load_spec
from tests.bench.toys import quick_context

reference = quick_context().baselines("per_candidate")
ONE_TASK = [[Task.RECOMMENDATION] * 2, [Task.SEARCH] * 2]
BOTH = [Task.SEARCH, Task.RECOMMENDATION]


@pytest.fixture(scope="module")
def work():
    return Workload(SHAPES["tiny"])


@pytest.fixture(scope="module")
def causal():
    return Workload(SHAPES["tiny"], kind="decoder")


@pytest.fixture(scope="module")
def exact(work):
    return work.ranker("interleaved", loss="vocabulary")


def difference(one, other):
    return float((one - other).abs().max())


@pytest.mark.parametrize("tasks", ONE_TASK)
def test_the_released_path_gives_the_margins_of_the_exact_layout(work, exact, tasks):
    batch = work.requests(tasks, 5)
    margins = reference.score(exact, batch)
    assert margins.shape == (2, 5)
    assert margins.dtype == torch.float32
    assert margins.std() > 0.01
    assert difference(margins, scoring.scorer(exact, batch)()) < 1e-4


def test_a_generated_token_has_the_logits_of_a_forward_pass(work, exact):
    pairs = one_at_a_time(work.requests([Task.SEARCH], 3))
    with torch.no_grad():
        inputs, mask = reference.prompts(exact, pairs, reference.slots(exact, pairs))
        start = torch.zeros(3, 1, dtype=torch.int64)
        model = exact.backbone.model
        logits = model(inputs_embeds=inputs, attention_mask=mask, decoder_input_ids=start).logits[:, 0]
    margins = logits[:, exact.backbone.yes] - logits[:, exact.backbone.no]
    assert difference(reference.score(exact, work.requests([Task.SEARCH], 3))[0], margins) < 1e-5


def test_rows_are_read_in_parts_of_any_size(work, exact):
    batch = work.requests([Task.SEARCH] * 2, 5)
    assert difference(reference.score(exact, batch, rows=3), reference.score(exact, batch)) < 1e-5


@pytest.mark.parametrize("tasks", [*ONE_TASK, BOTH])
def test_a_causal_model_gives_the_packed_margins_for_whole_prompts(causal, tasks):
    packed, batch = causal.ranker("packed"), causal.requests(tasks, 5)
    assert difference(reference.score(packed, batch), scoring.scorer(packed, batch)()) < 1e-4


def test_both_have_one_loss_with_the_same_gradients(work, exact):
    batch = work.requests([Task.SEARCH] * 2, 5)
    gradients = []
    for loss in (exact.loss(batch).total, reference.loss(exact, one_at_a_time(batch))):
        exact.zero_grad()
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in exact.named_parameters() if p.grad is not None})
    ours, theirs = gradients
    assert loss.item() == pytest.approx(exact.loss(batch).total.item(), rel=1e-5)
    trained = {name for name, gradient in ours.items() if gradient.any()}
    assert trained == {name for name, gradient in theirs.items() if gradient.any()}
    assert any(name.startswith("views.text.encoder") for name in trained)
    for name in trained:
        assert difference(ours[name], theirs[name]) < 1e-4 * max(1.0, float(ours[name].abs().max())), name


def test_a_step_in_parts_is_a_step_at_once_but_for_the_contrastive_loss():
    def step(rows):
        work = Workload(SHAPES["tiny"], dropout=0.0)
        ranker = work.ranker("interleaved", loss="vocabulary")
        ranker.alignment = None
        optimizer = reference.released_optimizer(ranker)
        reference.training_step(ranker, work.requests([Task.SEARCH] * 2, 3), optimizer, rows=rows)
        assert all(parameter.grad is None for parameter in ranker.parameters())
        moments = [state["exp_avg"] for state in optimizer.state.values()]
        return torch.cat([moment.flatten() for moment in moments])

    whole = step(6)
    assert difference(step(2), whole) < 1e-5
    assert whole.norm() == pytest.approx(0.1, abs=0.05)  # (1 - beta) of a gradient clipped at norm 1


def test_both_histories_are_encoded_anew_for_every_candidate(work, exact):
    shapes = []
    hooks = [
        view.encoder.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
        for view in exact.views.values()
    ]
    reference.score(exact, work.requests([Task.SEARCH] * 2, 5))
    for hook in hooks:
        hook.remove()
    assert shapes == [(10, 20, 64), (10, 200, 32)]


@pytest.mark.parametrize(("task", "length"), [(Task.RECOMMENDATION, 78), (Task.SEARCH, 95)])
def test_prompts_are_as_long_as_the_released_ones(work, exact, task, length):
    batch = work.requests([task], 2)
    pairs = one_at_a_time(batch)
    with torch.no_grad():
        inputs, mask = reference.prompts(exact, pairs, reference.slots(exact, pairs))
    assert inputs.shape == (2, length, 32)
    assert bool(mask.all())
    assert sum(TOKENS[task]) + 4 == length
    blocks = {wording: prompt_of(work.ranker(wording), batch) for wording in ("interleaved", "packed")}
    assert blocks["interleaved"].prefix.shape[1] == 0
    assert blocks["interleaved"].block_mask.sum() == length
    assert blocks["packed"].prefix_mask.sum() == length - 4
    assert blocks["packed"].slot.tolist() == [[0, 1, 2, 3]]


def prompt_of(ranker, batch):
    return ranker.prompts(batch.task, ranker.query_ids[batch.query], torch.ones(len(batch), 4, dtype=torch.bool))


def test_in_a_batch_of_both_tasks_padding_stands_in_the_middle(work, exact):
    batch = work.requests(BOTH, 3)
    pairs = one_at_a_time(batch)
    with torch.no_grad():
        _, mask = reference.prompts(exact, pairs, reference.slots(exact, pairs))
    search, recommendation = mask[0], mask[-1]
    assert bool(search.all())
    assert recommendation.sum() == 78
    assert recommendation.tolist() == [1] * (15 + 1 + 9 + 1 + 29) + [0] * 9 + [1] * (1 + 4 + 1 + 17) + [0] * 8
    ours, theirs = scoring.scorer(exact, batch)(), reference.score(exact, batch)
    assert difference(ours[0], theirs[0]) < 1e-4
    assert difference(ours[1], theirs[1]) > 1e-3  # T5 counts the padding into its distances


def test_all_prompts_of_a_workload_share_their_weights(work, exact):
    packed = work.ranker("packed")
    assert packed.backbone is exact.backbone
    for name, parameter in exact.views.named_parameters():
        assert torch.equal(parameter, packed.views.get_parameter(name))
    assert [len(text.split()) for text in SEGMENTS[Task.SEARCH][:4]] == [15, 9, 38, 4]


def test_requests_differ_and_have_one_truth(work):
    batch = work.requests([Task.SEARCH] * 3, 8)
    assert batch.label.sum(1).tolist() == [1, 1, 1]
    assert len(set(batch.query.tolist())) == 3
    assert all(len(set(row)) == 8 for row in batch.cand.tolist())
    assert work.requests([Task.RECOMMENDATION], 2).query.tolist() == [0]


def test_margins_that_differ_are_told_apart():
    with pytest.raises(GensrError, match=r"the fast path: margins differ by 0\.5, more than 0\.0001"):
        require_equal("the fast path", torch.zeros(2), torch.tensor([0.0, 0.5]))
    with pytest.raises(GensrError, match="differ by nan"):
        require_equal("the fast path", torch.zeros(1), torch.tensor([torch.nan]))


def test_a_wrong_path_is_not_timed(monkeypatch):
    shifted = SimpleNamespace(score=lambda ranker, batch: reference.score(ranker, batch) + 1)
    for suite in (scoring, decoder):
        with pytest.raises(GensrError, match="a speed would mean nothing"):
            next(suite.cases(quick_context(baselines=lambda name: shifted)))


def test_a_wrong_path_in_bf16_is_not_timed(monkeypatch):
    for suite, kind in ((scoring, "t5"), (decoder, "decoder")):
        other = Workload(SHAPES["tiny"], kind=kind, seed=7).ranker("packed")  # other weights
        monkeypatch.setattr(suite, "in_bf16", lambda ranker, other=other: other)
        with pytest.raises(GensrError, match=r"packed in bf16, and in fp32: .* a speed would mean nothing"):
            next(suite.cases(quick_context()))


def test_an_unknown_shape_is_refused_by_name():
    with pytest.raises(BadInputError, match=r"no shape named 'smal'; did you mean 'small'\? Known: tiny, small, base"):
        find_shape("smal")


@pytest.mark.parametrize("suite", [scoring, training, decoder])
def test_every_case_runs(suite):
    check_cases(suite.cases(quick_context()))


@pytest.mark.parametrize("suite", [scoring, training])
def test_a_spec_is_measured_on_its_own_data(suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_cases(suite.cases(quick_context(spec=load_spec("preset:tiny"))))


def check_cases(cases):
    workloads = []
    for workload, group in groupby(cases, key=lambda case: case.workload):
        group = list(group)
        workloads.append(workload)
        assert [case.baseline for case in group] == [True] + [False] * (len(group) - 1)
        assert len({case.name for case in group}) == len(group)
        for case in group:
            found = case.run()
            assert found is None or bool(found.isfinite().all())
            assert case.units > 0
            assert case.dtype == ("bf16" if "bf16" in case.name else "fp32")
    assert workloads
    assert len(set(workloads)) == len(workloads)
