"""The published settings of each experiment. This module imports nothing: a command line needs it before TensorFlow."""

# cbfinn/maml, main.py: the defaults of its flags, where a domain does not say otherwise.
_PUBLISHED_DEFAULTS = dict(
  num_classes=5,
  baseline="None",
  pretrain_iterations=0,
  meta_batch_size=25,
  meta_lr=0.001,
  num_updates=1,
  num_filters=64,
  conv=True,
  max_pool=False,
  stop_grad=False,
  log=True,
  logdir="logs",  # published: /tmp/data
  resume=True,
  train=True,
  test_iter=-1,
  test_set=False,
  train_update_batch_size=-1,
  train_update_lr=-1.0,
  init_stddev=0.01,
  seed=0,
  data_dir="data",
  split="published",
  loss_reduction="mean",
  learner="maml",
  bn_mode="transductive",
  task_chunk=0,
  checkpoint_inner_steps=False,
  mixed_precision=False,
  init_from=None,
  export=True,
  eval_tasks=600,  # cbfinn/maml, main.py, NUM_TEST_POINTS
  eval_updates=10,  # Finn et al. 2017, figure 3; appendix A.1 for miniImageNet
)

SINUSOID = dict(
  _PUBLISHED_DEFAULTS,
  metatrain_iterations=70000,  # cbfinn/maml, main.py, usage: 10-shot sinusoid
  update_batch_size=10,  # likewise
  # The paper's text says 0.01. Its published command leaves the flag at its default of 0.001, and only that
  # reproduces the paper's table 2: with 0.01, several steps at test time diverge.
  update_lr=0.001,
  norm="None",  # likewise
  # Published: 0.01. From there it depends on the seed when, and whether, training leaves a plateau (docs/fidelity.md
  # has the numbers); from 0.1 every seed reaches the paper's table.
  init_stddev=0.1,
  test_set=True,  # published: False; tasks are drawn afresh either way, and the table is one of test tasks
  eval_queries=100,  # published: K; more points measure the same mean with less noise
  jit_compile=True,
)

OMNIGLOT = dict(
  _PUBLISHED_DEFAULTS,
  # cbfinn/maml, main.py, usage: 5-way, 1-shot omniglot
  metatrain_iterations=60000,
  meta_batch_size=32,
  update_batch_size=1,
  update_lr=0.4,
  norm="batch_norm",
  loss_reduction="per_class_sum",  # cbfinn/maml, utils.py, xent, and the unreduced vector in maml.py
  eval_queries=0,  # 1, 15 and, as in cbfinn/maml's main.py, as many as shots
  jit_compile=False,  # on a CPU a graph is as fast or faster (results/benchmark_omniglot.json)
)

# cbfinn/maml, main.py, usage: 20-way, 1-shot omniglot
OMNIGLOT_20_WAY = dict(meta_batch_size=16, update_lr=0.1, num_updates=5)

MINIIMAGENET = dict(
  OMNIGLOT,
  # cbfinn/maml, main.py, usage: 5-way 1-shot mini imagenet
  meta_batch_size=4,
  update_lr=0.01,
  num_updates=5,
  num_filters=32,
  max_pool=True,
)

# Finn et al. 2017, appendix A.1: 2 tasks; the usage in cbfinn/maml repeats the 4 of 1-shot.
MINIIMAGENET_5_SHOT = dict(meta_batch_size=2)

PRESETS = {"sinusoid": SINUSOID, "omniglot": OMNIGLOT, "miniimagenet": MINIIMAGENET, "folder": MINIIMAGENET}
IMAGE_DATASOURCES = ("omniglot", "miniimagenet", "folder")


def preset(datasource, given):
  """The defaults of a domain for the task that the given settings name: a dict of its own."""
  settings = dict(PRESETS[datasource])
  if datasource not in IMAGE_DATASOURCES:
    return settings
  shots = given.get("update_batch_size", settings["update_batch_size"])
  trained = given.get("train_update_batch_size", -1)
  if datasource == "omniglot" and given.get("num_classes") == 20:
    settings |= OMNIGLOT_20_WAY
  if datasource == "miniimagenet" and (shots if trained == -1 else trained) == 5:
    settings |= MINIIMAGENET_5_SHOT
  return settings


# 5-shot mean squared error after 1, 5 and 10 steps (Finn et al. 2017, table 2).
PUBLISHED_SINUSOID = {
  "maml": {1: 0.67, 5: 0.38, 10: 0.35},
  "pretrain": {1: 2.41, 5: 2.23, 10: 2.19},
}

# Test accuracy and the number of steps after which it is read (Finn et al. 2017, table 1 and appendix A.1), by data
# set, ways, shots, whether convolutional and whether first order.
PUBLISHED_IMAGES = {
  ("omniglot", 5, 1, True, False): (0.987, 3),
  ("omniglot", 5, 5, True, False): (0.999, 3),
  ("omniglot", 20, 1, True, False): (0.958, 5),
  ("omniglot", 20, 5, True, False): (0.989, 5),
  ("omniglot", 5, 1, False, False): (0.897, 3),
  ("omniglot", 5, 5, False, False): (0.975, 3),
  ("miniimagenet", 5, 1, True, False): (0.4870, 10),
  ("miniimagenet", 5, 5, True, False): (0.6311, 10),
  ("miniimagenet", 5, 1, True, True): (0.4807, 10),
  ("miniimagenet", 5, 5, True, True): (0.6315, 10),
}


def published_accuracy(config, shots):
  """(accuracy, step) of the cell of the paper's table 1 that a config reproduces, evaluated with `shots`; or None."""
  chosen = config.trained_with, config.bn_mode, config.split, config.norm
  if chosen != ("maml", "transductive", "published", "batch_norm"):
    return None
  return PUBLISHED_IMAGES.get((config.datasource, config.num_classes, shots, config.conv, config.stop_grad))
