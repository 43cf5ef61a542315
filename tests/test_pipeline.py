import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import gensr
from gensr.encoders.cf.config import ALSConfig
from gensr.errors import BadInputError, GensrError, MissingExtraError
from gensr.files import locked
from gensr.pipeline import build, run_directory
from gensr.rankers.config import LexicalConfig, PopularityConfig, RandomConfig
from gensr.spec import load_spec
from tests.toy import ToyRanker, ToySourceConfig, digest, registered, toy_spec


@pytest.fixture(autouse=True)
def toys():
    with registered():
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    with registered():
        return build(toy_spec(), root=root, progress=False)


def quick(root, spec=None, **options):
    return build(spec or toy_spec(max_steps=3), root=root, progress=False, **options)


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_run_directory_holds_all_that_a_run_is(built):
    spec = toy_spec()
    assert built.path == run_directory(spec, built.path.parent)
    assert built.path.name == f"toy-{spec.fingerprint()[:8]}"
    assert {p.name for p in built.path.iterdir()} == {
        ".lock", "spec.json", "manifest.json", "metrics.json", "history.jsonl", "checkpoints", "model", "predictions",
        "report.md", "log.txt",
    }  # fmt: skip
    assert load_spec(built.path / "spec.json") == spec


def test_metrics_hold_the_ranker_its_floors_and_its_ablations(built):
    rankers = built.metrics["candidates"]["uniform-20"]["rankers"]
    assert set(rankers) == {"toy", "random", "popularity"}
    assert built.metrics["main"] == "toy"
    assert rankers["toy"]["search"]["requests"] == 40
    assert set(rankers["toy"]) == {"search", "recommendation"}
    ablations = built.metrics["ablations"]["uniform-20"]
    assert set(ablations["shuffled_query"]) == {"search"}
    assert set(ablations["no_history"]) == {"recommendation"}
    assert ablations["shuffled_query"]["search"]["ndcg@5"]["value"] < rankers["toy"]["search"]["ndcg@5"]["value"]


def test_the_manifest_says_what_was_computed_where_and_how_fast(built):
    manifest = built.manifest
    assert manifest["versions"]["gensr"] == gensr.__version__
    assert set(manifest["versions"]) >= {"gensr", "torch", "transformers", "python"}
    assert manifest["seed"] == 1
    assert manifest["device"].startswith("cpu")
    assert manifest["candidates"] == {
        "uniform-20": built.metrics["candidates"]["uniform-20"]["sha256"],
    }
    parameters = manifest["parameters"]
    assert parameters["frozen"] == 3
    assert parameters["total"] == parameters["trainable"] + 3
    assert manifest["training"]["rows_per_second"] > 0
    assert manifest["scoring"]["requests"] == 80
    assert manifest["scoring"]["candidates_per_second"] > manifest["scoring"]["requests_per_second"] > 0
    assert set(manifest["seconds"]) == {"data", "ranker", "training", "evaluation", "total"}
    assert manifest["memory_mib"]["process"] > 0


def test_predictions_hold_ranks_and_a_trec_run(built):
    names = {p.name for p in (built.path / "predictions").iterdir()}
    assert names == {
        "uniform-20.toy.npz", "uniform-20.random.npz", "uniform-20.popularity.npz", "uniform-20.toy.shuffled_query.npz",
        "uniform-20.toy.no_history.npz",
        "uniform-20.toy.no_query.npz", "uniform-20.toy.trec.gz", "uniform-20.qrels.gz",
    }  # fmt: skip


def test_the_report_shows_both_tasks_and_the_audit(built):
    text = (built.path / "report.md").read_text()
    assert "search (40 requests)" in text
    assert "recommendation (40 requests)" in text
    assert "## Audits" in text
    assert "### Data" in text


def test_a_finished_run_is_opened_not_built_again(built, monkeypatch):
    monkeypatch.setattr(ToyRanker, "loss", lambda *_: pytest.fail("trained again"))
    before = (built.path / "manifest.json").read_text()
    again = build(toy_spec(), root=built.path.parent, progress=False)
    assert again.path == built.path
    assert (built.path / "manifest.json").read_text() == before


def test_a_renamed_spec_with_the_same_content_may_share_a_run_directory(tmp_path):
    run = quick(tmp_path)
    renamed = toy_spec(max_steps=3).model_copy(update={"name": "other"})
    assert quick(tmp_path, renamed, run_dir=run.path).path == run.path


def test_force_builds_anew(tmp_path):
    run = quick(tmp_path)
    (run.path / "notes.txt").write_text("mine")
    before = run.manifest["seconds"]
    again = quick(tmp_path, force=True)
    assert again.manifest["seconds"] != before
    assert again.manifest["training"]["resumed_from"] is None
    assert (run.path / "notes.txt").read_text() == "mine"


def test_two_builds_of_one_spec_give_the_same_metrics_and_weights(tmp_path):
    first, second = (quick(tmp_path / name) for name in ("a", "b"))
    assert first.metrics == second.metrics
    assert digest(first.ranker) == digest(second.ranker)


def test_variants_share_data_tables_and_ranks_of_floors(tmp_path, monkeypatch):
    fits = []
    fit = ALSConfig.fit
    monkeypatch.setattr(ALSConfig, "fit", lambda self, *args, **kwargs: fits.append(1) or fit(self, *args, **kwargs))
    floors = ["popularity", {"type": "cf", "cf": {"type": "als", "dim": 4}}]
    spec = toy_spec(max_steps=3, evaluation={"floors": floors})
    first = quick(tmp_path, spec)
    monkeypatch.setattr(PopularityConfig, "build", lambda *_: pytest.fail("ranked a floor again"))
    monkeypatch.setattr(ToySourceConfig, "read", lambda *_: pytest.fail("read the data again"))
    second = quick(tmp_path, toy_spec(max_steps=4, evaluation={"floors": floors}))
    assert len(fits) == 1
    of = [run.metrics["candidates"]["uniform-20"]["rankers"]["cf"] for run in (first, second)]
    assert of[0] == of[1]


def test_another_candidate_list_is_measured_too_and_the_first_one_leads(tmp_path):
    spec = toy_spec(max_steps=3).model_dump()
    spec["data"]["candidates"] = [{"type": "uniform", "count": 20}, {"type": "uniform", "count": 50}]
    run = quick(tmp_path, load_spec(spec))
    assert list(run.metrics["candidates"]) == ["uniform-20", "uniform-50"]
    assert all(set(found["rankers"]) == {"toy", "random", "popularity"} for found in run.metrics["candidates"].values())


def test_a_floor_whose_package_is_missing_is_reported_with_its_install_line(tmp_path, monkeypatch):
    def missing(self, resources):
        raise MissingExtraError("bm25s", "retrieval", "the lexical ranker")

    monkeypatch.setattr(LexicalConfig, "build", missing)
    run = quick(tmp_path, toy_spec(max_steps=3, evaluation={"floors": ["random", "lexical"]}))
    assert run.metrics["missing"]["lexical"].startswith("not measured: ")
    assert "pip install 'gensr[retrieval]'" in run.metrics["missing"]["lexical"]
    assert "lexical" in (run.path / "report.md").read_text()


def test_a_floor_can_be_the_ranker(tmp_path):
    spec = load_spec(toy_spec().model_dump() | {"ranker": "popularity"})
    run = quick(tmp_path, spec)
    assert run.manifest["training"] is None
    assert "training" not in run.manifest["seconds"]
    assert set(run.metrics["candidates"]["uniform-20"]["rankers"]) == {"popularity", "random"}
    assert len(run.rank(["i1"], None, ["i2", "i3"])) == 2


def test_a_ranker_of_none_of_the_tasks_asked_for_is_told_before_it_is_trained(tmp_path):
    spec = toy_spec(ranker={"type": "sasrec", "dim": 8}, evaluation={"tasks": ["search"]})
    with pytest.raises(BadInputError, match=r"evaluation\.tasks is search, but a ranker of type 'sasrec' does"):
        quick(tmp_path, spec)
    assert not list(tmp_path.rglob("checkpoints"))


def test_only_the_tasks_asked_for_are_reported(tmp_path):
    run = quick(tmp_path, toy_spec(max_steps=3, evaluation={"tasks": ["src"]}))
    assert set(run.metrics["candidates"]["uniform-20"]["rankers"]["toy"]) == {"search"}
    assert set(run.metrics["ablations"]["uniform-20"]) == {"shuffled_query", "no_query"}


def test_a_build_killed_in_its_evaluation_goes_on_from_the_trained_weights(tmp_path, monkeypatch, built):
    def power_cut(self, resources):
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(RandomConfig, "build", power_cut)
        with pytest.raises(RuntimeError, match="power cut"):
            build(toy_spec(), root=tmp_path, progress=False)
    path = run_directory(toy_spec(), tmp_path)
    assert not (path / "manifest.json").exists()
    assert not list(path.glob(".*.tmp"))
    monkeypatch.setattr(ToyRanker, "loss", lambda *_: pytest.fail("trained again"))
    run = build(toy_spec(), root=tmp_path, progress=False)
    assert run.manifest["training"]["resumed_from"] == 60
    assert run.metrics == built.metrics


def test_no_resume_trains_anew(tmp_path):
    spec = toy_spec(max_steps=3)
    run = quick(tmp_path, spec)
    (run.path / "manifest.json").unlink()
    assert quick(tmp_path, spec, resume=False).manifest["training"]["resumed_from"] is None


def test_bad_data_leave_nothing_behind(tmp_path):
    (tmp_path / "bad.csv").write_text("user_id,nothing\n1,2\n")
    spec = {"data": {"source": {"type": "table", "path": str(tmp_path / "bad.csv")}}}
    with pytest.raises(BadInputError):
        build(spec, root=tmp_path / "runs", progress=False)
    with pytest.raises(BadInputError):
        build(spec, root=tmp_path / "runs", run_dir=tmp_path / "here", progress=False)
    assert everything(tmp_path) == ["bad.csv"]


def test_a_ranker_that_cannot_be_built_leaves_no_run_directory_and_spares_an_older_run(tmp_path, monkeypatch):
    def refuse(self, resources):
        raise BadInputError("answers are not single tokens")

    run = quick(tmp_path / "old")
    with monkeypatch.context() as patch:
        patch.setattr(type(toy_spec().ranker), "build", refuse)
        with pytest.raises(BadInputError, match="single tokens"):
            quick(tmp_path / "new")
        with pytest.raises(BadInputError, match="single tokens"):
            quick(tmp_path / "old", force=True)
    assert [name for name in everything(tmp_path / "new") if not name.startswith(".cache")] == []
    assert (run.path / "manifest.json").exists()


def test_a_run_directory_of_another_spec_is_not_touched(built):
    before = (built.path / "spec.json").read_text()
    with pytest.raises(BadInputError, match=r"holds another run: .*--force"):
        build(toy_spec(seed=9), root=built.path.parent, run_dir=built.path, progress=False)
    assert (built.path / "spec.json").read_text() == before


def test_a_folder_with_other_things_in_it_is_no_run_directory(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("")
    with pytest.raises(BadInputError, match=r"no run directory \(it holds 'thesis.tex'\)"):
        quick(tmp_path / "runs", run_dir=tmp_path / "mine")
    with pytest.raises(BadInputError, match="no run directory"):
        quick(tmp_path / "runs", run_dir=tmp_path / "mine", force=True)
    assert everything(tmp_path / "mine") == ["thesis.tex"]
    with pytest.raises(BadInputError, match="is a file"):
        quick(tmp_path / "runs", run_dir=tmp_path / "mine/thesis.tex")


def test_a_finished_run_of_data_that_have_changed_is_not_passed_off_as_built(tmp_path, monkeypatch):
    quick(tmp_path)
    monkeypatch.setattr(ToySourceConfig, "identity", lambda self: "changed")
    with pytest.raises(BadInputError, match="built from other data"):
        quick(tmp_path)


def test_a_finished_run_of_a_table_that_has_changed_is_not_passed_off_as_built(tmp_path):
    path = tmp_path / "items.npy"
    np.save(path, np.ones((120, 2)))
    options = {"ranker": {"type": "cf", "cf": {"type": "file", "path": str(path)}}, "evaluation": {"floors": []}}
    spec = load_spec(toy_spec().model_dump() | options)
    assert quick(tmp_path / "runs", spec).manifest["files"] == spec.ranker.identity()
    quick(tmp_path / "runs", spec)
    np.save(path, np.zeros((120, 2)))
    with pytest.raises(BadInputError, match="built from other data, from other files"):
        quick(tmp_path / "runs", spec)


def test_a_checkpoint_of_other_data_is_refused(tmp_path, monkeypatch):
    run = quick(tmp_path)
    (run.path / "manifest.json").unlink()
    monkeypatch.setattr(ToySourceConfig, "identity", lambda self: "changed")
    with pytest.raises(BadInputError, match="another spec or other data"):
        quick(tmp_path)


def test_a_run_directory_in_use_names_the_process(tmp_path):
    path = run_directory(toy_spec(max_steps=3), tmp_path)
    code = (
        "import sys, fcntl, os\n"
        "file = open(sys.argv[1], 'a+'); fcntl.flock(file, fcntl.LOCK_EX); file.write(str(os.getpid())); file.flush()\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    path.mkdir()
    arguments = [sys.executable, "-c", code, str(path / ".lock")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(BadInputError) as error:
            quick(tmp_path)
        assert str(error.value) == f"the run directory {path} is in use by another process (pid {holder.pid})"
        holder.kill()  # the kernel releases the lock of a killed process
    assert quick(tmp_path).path == path


def test_a_lock_deleted_by_its_holder_still_excludes(tmp_path):
    path = tmp_path / "x.lock"
    with locked(path):
        path.unlink()
        with locked(path), pytest.raises(BadInputError, match=f"pid {os.getpid()}"), locked(path, refuse="it"):
            pass


def test_a_full_disk_stops_the_build_with_the_path(tmp_path, monkeypatch):
    import errno

    def full(self, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ToyRanker, "save", full)
    with pytest.raises(GensrError, match=r"the disk is full: writing .*/model needs"):
        quick(tmp_path)
    path = run_directory(toy_spec(max_steps=3), tmp_path)
    assert not (path / "model").exists()
    monkeypatch.undo()
    assert quick(tmp_path).manifest["training"]["resumed_from"] == 3


def test_an_unknown_device_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(BadInputError, match=r"no device named 'gpu'.*Known: auto, cpu, cuda"):
        quick(tmp_path, device="gpu")
    with pytest.raises(BadInputError, match="CUDA_VISIBLE_DEVICES"):
        quick(tmp_path, device="cuda:1")


def test_progress_goes_to_stderr_and_the_log_and_never_to_stdout(tmp_path, capsys):
    run = build(toy_spec(max_steps=3), root=tmp_path)
    shown = capsys.readouterr()
    assert shown.out == ""
    for text in (shown.err, (run.path / "log.txt").read_text()):
        assert "[1/4] data: toy_log" in text
        assert "step 3 of 3: validation NDCG@5" in text


def test_a_moved_root_keeps_its_cache(tmp_path, monkeypatch):
    quick(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(ToySourceConfig, "read", lambda *_: pytest.fail("read the data again"))
    assert json.loads((quick(tmp_path / "b", toy_spec(max_steps=4)).path / "manifest.json").read_text())


def test_what_a_killed_process_left_under_a_temporary_name_does_not_bar_the_directory(tmp_path):
    path = run_directory(toy_spec(max_steps=3), tmp_path)
    path.mkdir()
    (path / ".spec.json.tmp").write_text("{")
    assert quick(tmp_path).path == path
    assert not (path / ".spec.json.tmp").exists()


def test_options_that_only_a_component_can_refuse_are_bad_input(tmp_path, monkeypatch):
    def refuse(self, resources):
        raise ValueError("heads=3 does not divide dim=8")

    monkeypatch.setattr(type(toy_spec().ranker), "build", refuse)
    with pytest.raises(BadInputError, match="ranker: heads=3 does not divide dim=8"):
        quick(tmp_path)
