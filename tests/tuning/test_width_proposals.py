"""Widths proposed from the clusters of a network's channels, and the command that writes them."""

import csv

import numpy as np
import pytest
from PIL import Image

import googlenet
import tuning
from inception_v1 import BLOCKS, Spec, cost
from inception_v1.cost import classifier_cost
from inception_v1.errors import UserError
from inception_v1.spec import read_spec
from tests.helpers.runs import save_run
from tuning.space import SPACES, Space
from tuning.width_proposals import widths_from_counts

SPEC = Spec("batchnorm", input_shape=(32, 32, 1), classes=10, aux=False, stem="small")
COUNTS = {block: (8, 4, 2) for block in BLOCKS}


def test_widths_are_as_wide_as_the_clusters_say_within_the_budget():
    budget = cost(SPEC).macs
    widths = widths_from_counts(SPEC, COUNTS, budget)
    macs = classifier_cost(SPEC, widths)[1]
    assert 0.97 * budget < macs <= budget
    for block, row in widths.items():
        assert all(width % 8 == 0 for width in row)
        assert abs(row.conv1 - 2 * row.conv3) <= 8
        assert abs(row.conv3 - 2 * row.conv5) <= 8
        own = BLOCKS[block]
        assert abs(row.reduce3 - row.conv3 * own.reduce3 / own.conv3) <= 8
    larger = widths_from_counts(SPEC, COUNTS, 2 * budget)
    assert all(sum(larger[block]) > sum(widths[block]) for block in BLOCKS)


def test_branches_without_clusters_keep_eight_channels():
    widths = widths_from_counts(SPEC, COUNTS | {"4a": (3, 0, 0)}, cost(SPEC).macs)
    assert (widths["4a"].conv3, widths["4a"].reduce5, widths["4a"].conv5) == (8, 8, 8)


def test_a_budget_below_the_smallest_network_names_it():
    smallest = classifier_cost(SPEC, {block: type(row)(*[8] * 6) for block, row in BLOCKS.items()})[1]
    assert cost(Spec(**SPEC.to_dict() | {"widths": widths_from_counts(SPEC, COUNTS, smallest)})).macs == smallest
    with pytest.raises(UserError, match=f"at least {smallest:,} multiply-accumulates.*Received: {smallest - 1:,}"):
        widths_from_counts(SPEC, COUNTS, smallest - 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    splits = {"train_split": "train[:64]", "validation_split": "test[:9]", "test_split": "test[:9]", "batch_size": 32}
    return save_run(tmp_path_factory.mktemp("runs") / "run", data_dir, aux=False, **splits)


def test_the_command_writes_a_network_to_train_a_table_and_a_figure(run, tmp_path, capsys):
    out = tmp_path / "widths"
    argv = ["widths", str(run), "--images", "40", "--keep-macs", "0.8", "--threshold", "0.5", "--out", str(out)]
    assert googlenet.main(argv) == 0
    assert "clusters for 1x1, 3x3, 5x5" in capsys.readouterr().out
    spec, before = read_spec(out / "spec.json"), read_spec(run / "spec.json")
    assert spec.widths.keys() == BLOCKS.keys()
    assert 0.7 * cost(before).macs < cost(spec).macs <= 0.8 * cost(before).macs
    with (out / "widths.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["block"] for row in rows[::2]] == list(BLOCKS)
    assert [int(rows[0][field]) for field in spec.widths["3a"]._fields] == list(spec.widths["3a"])
    assert all(
        int(row["channels"]) >= sum(int(row[f"clusters_{k}"]) for k in ("1x1", "3x3", "5x5")) for row in rows[::2]
    )
    assert np.asarray(Image.open(out / "correlations.png").convert("L")).std() > 20
    assert googlenet.main(argv) == 2
    assert "Expected a new folder (--out)" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [{"threshold": 1.0}, {"images": 0}, {"keep_macs": 0.0}, {"keep_macs": 1e-6}])
def test_bad_arguments_are_refused_before_any_work(bad, run, monkeypatch):
    monkeypatch.setattr("tuning.width_proposals.training_examples", lambda *_: pytest.fail("read images"))
    with pytest.raises(UserError, match=r"Expected .*; Received: "):
        tuning.correlated_widths(run, **bad)


@pytest.mark.parametrize("name", SPACES)
def test_a_search_tries_the_proposal_after_the_papers_widths(name, search, recipe):
    own = Spec("batchnorm", width_multiplier=recipe.width_multiplier).block_widths()
    widths = {block: row._replace(conv1=2 * row.conv1, conv3=max(1, row.conv3 // 2)) for block, row in own.items()}
    proposal = Spec("batchnorm", widths=widths)
    first, second, *_ = search(space=name, trials=3, proposal=proposal).trials
    assert first.values == Space(name, first.spec, recipe).default()
    assert second.spec != first.spec
    ratio = {field: 1.0 for field in ("conv1", "conv3")}
    for field in ratio:
        old, new = (getattr(trial.spec.block_widths()["4e"], field) for trial in (first, second))
        ratio[field] = new / old
    assert ratio["conv1"] > 1.2 > 0.8 > ratio["conv3"]


def test_a_grid_takes_no_proposal(search):
    with pytest.raises(UserError, match="Expected another tuner than 'grid'"):
        search(tuner="grid", proposal=Spec("batchnorm"))
