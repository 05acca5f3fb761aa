"""The command lines that the published code's main.py gives for images, as they stand but for the script's path.

`test_config.py` says what each setting has to be; here the text of the command line is what is tested.
"""

import shlex

import pytest

from maml_tf.experiments import command_line
from maml_tf.experiments.config import run_name

FIVE_WAY = (
  "python main.py --datasource=omniglot --metatrain_iterations=60000 --meta_batch_size=32 --update_batch_size=1 "
  "--update_lr=0.4 --num_updates=1 --logdir=logs/omniglot5way/"
)
TWENTY_WAY = (
  "python main.py --datasource=omniglot --metatrain_iterations=60000 --meta_batch_size=16 --update_batch_size=1 "
  "--num_classes=20 --update_lr=0.1 --num_updates=5 --logdir=logs/omniglot20way/"
)
MINI_ONE_SHOT = (
  "python main.py --datasource=miniimagenet --metatrain_iterations=60000 --meta_batch_size=4 --update_batch_size=1 "
  "--update_lr=0.01 --num_updates=5 --num_classes=5 --logdir=logs/miniimagenet1shot/ --num_filters=32 --max_pool=True"
)
MINI_FIVE_SHOT = (
  "python main.py --datasource=miniimagenet --metatrain_iterations=60000 --meta_batch_size=4 --update_batch_size=5 "
  "--update_lr=0.01 --num_updates=5 --num_classes=5 --logdir=logs/miniimagenet5shot/ --num_filters=32 --max_pool=True"
)
EVALUATION = "--train=False --test_set=True"
OF_FIVE_SHOTS = f"{EVALUATION} --update_batch_size=5 --train_update_batch_size=1"

OMNIGLOT = dict(
  num_filters=64, max_pool=False, conv=True, norm="batch_norm", meta_lr=0.001, loss_reduction="per_class_sum"
)
MINI = OMNIGLOT | dict(num_filters=32, max_pool=True, num_classes=5, num_updates=5, update_lr=0.01, meta_batch_size=4)
MEANING = {
  FIVE_WAY: OMNIGLOT | dict(num_classes=5, meta_batch_size=32, update_batch_size=1, update_lr=0.4, num_updates=1),
  TWENTY_WAY: OMNIGLOT | dict(num_classes=20, meta_batch_size=16, update_batch_size=1, update_lr=0.1, num_updates=5),
  MINI_ONE_SHOT: MINI | dict(update_batch_size=1),
  MINI_FIVE_SHOT: MINI | dict(update_batch_size=5),
}


@pytest.fixture
def parse(monkeypatch, tmp_path):
  """The config of a command line. The data need not be there: paths are checked elsewhere."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(command_line, "check_paths", lambda config: None)
  return lambda command: command_line.parse(shlex.split(command)[1:])[0]


def directory(config):
  return config.logdir, run_name(config)


@pytest.mark.parametrize("command", MEANING, ids=["omniglot5way", "omniglot20way", "mini1shot", "mini5shot"])
def test_a_published_command_line_means_the_same(parse, command):
  config = parse(command)
  expected = MEANING[command] | dict(metatrain_iterations=60000, train=True, stop_grad=False, baseline="None")
  assert {name: getattr(config, name) for name in expected} == expected
  assert f"logdir={config.logdir}" in command


@pytest.mark.parametrize("command", MEANING, ids=["omniglot5way", "omniglot20way", "mini1shot", "mini5shot"])
def test_its_evaluation_finds_its_run(parse, command):
  config = parse(f"{command} {EVALUATION}")
  assert directory(config) == directory(parse(command))
  assert (config.train, config.test_set, config.eval_tasks, config.eval_updates) == (False, True, 600, 10)
  assert config.eval_queries == 0  # 1, 15 and, as in the published test, as many as shots


@pytest.mark.parametrize("command", [FIVE_WAY, TWENTY_WAY], ids=["omniglot5way", "omniglot20way"])
def test_five_shots_are_evaluated_on_the_one_shot_run(parse, command):
  """A flag given twice counts as it stands last, as with TensorFlow 1's flags."""
  config = parse(f"{command} {OF_FIVE_SHOTS}")
  assert directory(config) == directory(parse(command))
  assert (config.update_batch_size, config.training_shots, config.eval_queries) == (5, 1, 0)


def test_four_command_lines_are_four_runs(parse):
  assert len({directory(parse(command)) for command in MEANING}) == 4
