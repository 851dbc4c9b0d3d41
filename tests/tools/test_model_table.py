"""The committed tables are what the networks measure, and that is what the paper publishes."""

import json

import pytest

from mmseg_ext.engine import leaf_configs
from mmseg_ext.errors import ConfigError

NOT_REPRODUCIBLE = {"D-LinkNet", "DUNet", "NL-LinkNet"}


@pytest.fixture(scope="module")
def done(run_tool):
    """One run over all configs, which prints the figures and checks the tables."""
    return run_tool("model_table.py", "--check", "--json", OMP_NUM_THREADS="2", timeout=900)


@pytest.fixture(scope="module")
def measured(done):
    return json.loads(done.stdout)["configs"]


@pytest.mark.slow
def test_the_committed_tables_are_fresh(done):
    assert done.stderr == ""
    assert done.returncode == 0


@pytest.mark.slow
def test_every_leaf_is_measured(measured):
    assert sorted(measured) == leaf_configs()


@pytest.mark.slow
def test_params_and_flops_are_the_papers(measured, published):
    for row in published["methods"]:
        for dataset in ("OPM", "DP"):
            cost = measured[row["config"].replace("{D}", dataset)]
            assert cost["counter_of_the_paper"] == row["published_counter"]
            assert cost["params_with_imagenet_head_m"] == pytest.approx(row["published_params_m"], abs=0.01)
            assert cost["torchprofile_g"] == pytest.approx(row["reference_torchprofile_g"], abs=0.005)
            if row["method"] not in NOT_REPRODUCIBLE:
                flops = cost[f"{row['published_counter']}_g"]
                assert flops == pytest.approx(row["published_flops_g"], abs=0.1)
            if row["published_counter"] == "mmcv":
                assert round(cost["mmcv_g"], 2) == row["published_flops_g"]
            assert cost["published"]["flops_g"] == row["published_flops_g"]


@pytest.mark.slow
def test_ablations_cost_what_the_paper_says(measured, published):
    base = "myconfigs/ablation/dsegnext.base.1024x1024.OPM.40k."
    for row in published["ablation_base"]:
        if row["variant"] != "full":
            cost = measured[f"{base}{row['variant']}.py"]
            assert round(cost["params_with_imagenet_head_m"], 2) == row["params_m"]
            assert round(cost["mmcv_g"], 2) == row["flops_g"]


def test_our_copy_of_the_published_tables_has_no_slip(published, root):
    ours = json.loads((root / "docs" / "published_results.json").read_text())
    for row, theirs in zip(ours["methods"], published["methods"], strict=True):
        assert row["config"].replace("{dataset}", "{D}") == theirs["config"]
        names = dict(method="method", params_m="published_params_m", flops_g="published_flops_g")
        assert {key: row[key] for key in names} == {key: theirs[name] for key, name in names.items()}
        assert row["counter"] == theirs["published_counter"]
        assert ("flops_note" in row) == (row["method"] in NOT_REPRODUCIBLE)
        assert [r["opm"] for r in row["results"]] == list(theirs["published_miou_opm"].values())
        deepglobe = [theirs["published_miou_deepglobe"].get(weights) for weights in theirs["published_miou_opm"]]
        assert [r["deepglobe"] for r in row["results"]] == deepglobe
        pretrained = [weights == "IN-1K" for weights in theirs["published_miou_opm"]]
        assert [r["encoder"] == "ImageNet-1k" for r in row["results"]] == pretrained
    keys = dict(params_m="params_m", flops_g="flops_g", miou="miou_opm", accuracy="acc_opm")
    for row, theirs in zip(ours["ablation"], published["ablation_base"], strict=True):
        assert row["variant"].replace("w/o ", "wo_").replace(" ", "_").replace("-", "_") == theirs["variant"]
        assert {key: row[key] for key in keys} == {key: theirs[name] for key, name in keys.items()}


def test_without_the_published_tables_nothing_is_measured(load_tool, tmp_path, monkeypatch):
    tool = load_tool("model_table")
    monkeypatch.setattr(tool, "measure_leaves", lambda: pytest.fail("measured"))
    monkeypatch.setattr(tool, "PUBLISHED", tmp_path / "none.json")
    monkeypatch.setattr("sys.argv", ["model_table.py"])
    with pytest.raises(ConfigError, match=r"none.json: cannot be read \(No such file or directory\); run the tool"):
        tool.main()


def test_deviations_need_a_note(load_tool):
    tool = load_tool("model_table")
    deviations, unexplained = tool.deviations, tool.unexplained
    row = dict(method="A", config="a.{dataset}.py", counter="mmcv", params_m=1.0, flops_g=2.0)
    cost = dict(params_with_imagenet_head_m=1.009, mmcv_g=2.09, torchprofile_g=9.0)
    assert deviations(row, cost) == []
    assert deviations(row, {**cost, "mmcv_g": 2.11}) == ["FLOPs 2.110 G, published 2.00 G"]
    assert deviations({**row, "counter": "torchprofile"}, cost) == ["FLOPs 9.000 G, published 2.00 G"]
    off = {**cost, "mmcv_g": 2.2, "params_with_imagenet_head_m": 1.02}
    published = dict(methods=[{**row, "flops_note": "known"}], ablation=[])
    assert unexplained(published, {"a.OPM.py": off}) == ["A: Params 1.020 M, published 1.00 M"]
    published = dict(methods=[], ablation=[dict(variant="w/o", config="b.py", params_m=1.0, flops_g=2.0)])
    assert len(unexplained(published, {"b.py": off})) == 2
