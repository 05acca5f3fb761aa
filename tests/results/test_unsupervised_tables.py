"""Results of learning without labels: how evaluations are named, and the table."""

import json

from maml_tf.experiments.config import resolve
from maml_tf.results import labels, tables


def evaluated(**given):
  record = resolve("omniglot", tasks="cactus", train=False, **given).to_dict()
  return labels.label(1000, labels.unusual(record))


def test_evaluations_of_one_training_are_told_apart():
  assert evaluated() == "1000"
  assert evaluated(num_classes=20) == "1000, num_classes=20"
  five = evaluated(num_classes=20, update_batch_size=5, train_update_batch_size=1)
  assert five == "1000, num_classes=20, update_batch_size=5"
  older = resolve("omniglot", num_classes=20, bn_mode="support").to_dict()
  del older["tasks"]  # of a run that is older than the setting
  assert labels.label(600, labels.unusual(older)) == "600, bn_mode=support"


def test_the_table_has_what_was_compared_beside_what_is_published(tmp_path):
  (tmp_path / "results").mkdir()
  assert "unsupervised_omniglot" not in tables.make(tmp_path)
  content = {
    "format_version": 1, "comparison": "pca32", "datasource": "omniglot", "command": "python scripts/compare.py",
    "results": {"knn": {"5-way 1-shot": {"mean": 0.5, "ci95": 0.01}}},
  }  # fmt: skip
  (tmp_path / "results" / "a.json").write_text(json.dumps(content))
  lines = tables.make(tmp_path)["unsupervised_omniglot"].markdown()
  assert lines[2] == (
    "| nearest neighbour | pca32 | 50.00 ± 1.00 | not run | not run | not run |  | [a.json](results/a.json) |"
  )
  assert any(line.startswith("| CACTUs-MAML, published | ACAI | 68.84 ± 0.80 | 87.78 ± 0.50 |") for line in lines)
