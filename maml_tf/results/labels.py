"""What an evaluation of images is called in a results file: its number of tasks, and what is not as usual in it."""

_PROTOCOL = {"bn_mode": "transductive", "eval_updates": 10}
# Of tasks without labels, one training is evaluated on tasks of several sizes, which are in one file.
_OF_UNLABELLED = {"bn_mode": "transductive", "eval_updates": 50, "num_classes": 5, "update_batch_size": 1}


def is_labelled(record):
  """Whether recorded settings are of training on the data set's own classes."""
  return record.get("tasks", "given") == "given"


def unusual(record):
  """The choices of an evaluation, by its recorded settings, that differ from the published protocol."""
  usual = _PROTOCOL if is_labelled(record) else _OF_UNLABELLED
  chosen = {name: record[name] for name in usual if record.get(name, usual[name]) != usual[name]}
  if record["train_update_lr"] not in (-1, record["update_lr"]):
    chosen["update_lr"] = record["update_lr"]
  return chosen


def label(tasks, chosen):
  """The name, of a number of tasks and of what `unusual` returns."""
  return ", ".join([str(tasks), *(f"{name}={value}" for name, value in chosen.items())])
