"""What the documents state is what the repository does."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_links_and_named_files_exist(path):
    text = path.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / target).exists(), target
    for target in re.findall(r"\b(?:myconfigs|tools|mmseg_ext)/[\w./-]+\.(?:py|sh)\b", text):
        assert (ROOT / target).exists(), target


def test_the_accuracy_tables_are_what_was_measured(run_tool):
    done = run_tool("accuracy_table.py", "--check")
    assert done.stderr == ""
    assert done.returncode == 0


def test_memory_table_is_what_the_tool_estimates():
    from mmseg_ext.engine import estimate_training_memory, load_config

    line = re.search(r"\| D-SegNeXt-T \| (\d) \| ([\d.]+) \| ([\d.]+) \|", (ROOT / "docs" / "train.md").read_text())
    cfg = load_config(str(ROOT / "myconfigs/dsegnext/tiny/Dsegnext.tiny.1024x1024.OPM.20k.py"))
    batch = cfg.data.samples_per_gpu
    gib = [estimate_training_memory(cfg, batch, 1024, 1024, p) / 2**30 for p in ("fp32", "fp16")]
    assert [str(batch), *(f"{value:.1f}" for value in gib)] == list(line.groups())


def test_the_list_of_data_sets_is_what_the_converters_are():
    from mmseg_ext.converters import describe
    from mmseg_ext.report.tables import with_block

    text = (ROOT / "docs" / "datasets.md").read_text()
    assert with_block(text, "data sets", describe()) == text
