"""Settings: what a domain's preset gives, what a flag overrides, what is refused and how."""

import dataclasses
import os
import re

import pytest

from maml_tf.errors import UserError
from maml_tf.experiments import methods
from maml_tf.experiments.config import Config, check_paths, resolve, run_name, training_settings
from maml_tf.experiments.domains import DATASOURCES, sinusoid
from maml_tf.experiments.settings import SETTINGS


def directory_name(**given):
  return run_name(resolve(**given))


def test_nothing_given_is_the_sinusoid_preset():
  config = resolve()
  assert config.datasource == "sinusoid"
  assert config.to_dict() == {s.name: s.default for s in SETTINGS.values()} | sinusoid.PRESET


@pytest.mark.parametrize(("datasource", "method"), [
  (datasource, name)
  for datasource, domain in DATASOURCES.items()
  for name, method in methods.METHODS.items()
  if domain.kind in method.kinds
])  # fmt: skip
def test_defaults_are_settings_that_there_are_and_have_their_types(datasource, method):
  flag = methods.METHODS[method].flag
  config = resolve(datasource, **{flag: method})
  assert (config.method, set(config.to_dict())) == (method, set(SETTINGS))
  for name, value in config.to_dict().items():
    setting = SETTINGS[name]
    assert type(value) is setting.kind or (value is None and (setting.optional or not config.applies(name))), name
  for given in ({}, {flag: method}):
    assert set(config.domain.defaults(datasource, config.description, given)) <= set(SETTINGS)


def test_given_wins_over_the_preset_and_none_does_not():
  config = resolve(meta_lr=0.01, seed=None)
  assert (config.meta_lr, config.seed) == (0.01, 0)


def test_every_setting_says_what_it_means():
  assert all(field.metadata["help"] for field in dataclasses.fields(Config))
  assert {field.name for field in dataclasses.fields(Config)} == set(SETTINGS)


# Numbers were committed with runs of these names, which --train=False has to find.
@pytest.mark.parametrize(("given", "name"), [
  ({}, "sinusoid.maml.mbs_25.ubs_10.numstep1.updatelr0.001.nonorm.seed0-f9c357dd"),
  ({"baseline": "oracle"}, "sinusoid.oracle.mbs_25.ubs_10.nonorm.seed0-12cc6044"),
  ({"baseline": "pretrain", "seed": 2}, "sinusoid.pretrain.mbs_25.ubs_10.nonorm.seed2-1f2506b9"),
  ({"baseline": "random"}, "sinusoid.random.mbs_25.ubs_10.nonorm.seed0-2db5978f"),
])  # fmt: skip
def test_the_names_of_sinusoid_runs_stay(given, name):
  assert directory_name(**given) == name


PUBLISHED = dict(datasource="sinusoid", logdir="logs/sine/", norm="None", update_batch_size=10)
TEN_SHOT = dict(PUBLISHED, metatrain_iterations=70000)
PRETRAINED = dict(PUBLISHED, pretrain_iterations=70000, metatrain_iterations=0)
ORACLE = dict(PRETRAINED, baseline="oracle")
ORACLE_OF_TEN_SHOT = dict(TEN_SHOT, baseline="oracle")


@pytest.mark.parametrize(
  ("command", "method"),
  [(TEN_SHOT, "maml"), (PRETRAINED, "pretrain"), (ORACLE, "oracle"), (ORACLE_OF_TEN_SHOT, "oracle")],
)
def test_the_published_command_lines_mean_the_same(command, method):
  config = resolve(**command)
  assert (config.method, config.iterations, config.pretrains_first) == (method, 70000, False)
  assert config.update_lr == (0.001 if method == "maml" else None)
  assert (config.meta_batch_size, config.meta_lr, config.num_updates) == (25, 0.001, 1)


def test_the_published_runs_do_not_share_a_directory():
  assert len({directory_name(**c) for c in (TEN_SHOT, PRETRAINED, ORACLE)}) == 3
  assert directory_name(**ORACLE) == directory_name(**ORACLE_OF_TEN_SHOT)


@pytest.mark.parametrize("command", [TEN_SHOT, PRETRAINED, ORACLE])
def test_the_evaluation_of_a_published_run_finds_it(command):
  assert directory_name(**command, train=False, test_set=True) == directory_name(**command)


# cbfinn/maml, main.py, usage; and what its code makes of the flags that are not given.
FIVE_WAY = dict(datasource="omniglot", metatrain_iterations=60000, meta_batch_size=32, update_batch_size=1,
                update_lr=0.4, num_updates=1, logdir="logs/omniglot5way/")  # fmt: skip
TWENTY_WAY = dict(datasource="omniglot", metatrain_iterations=60000, meta_batch_size=16, update_batch_size=1,
                  num_classes=20, update_lr=0.1, num_updates=5, logdir="logs/omniglot20way/")  # fmt: skip
MINI_ONE_SHOT = dict(datasource="miniimagenet", metatrain_iterations=60000, meta_batch_size=4, update_batch_size=1,
                     update_lr=0.01, num_updates=5, num_classes=5, logdir="logs/miniimagenet1shot/", num_filters=32,
                     max_pool=True)  # fmt: skip
MINI_FIVE_SHOT = dict(MINI_ONE_SHOT, update_batch_size=5, logdir="logs/miniimagenet5shot/")
IMAGE_COMMANDS = [FIVE_WAY, TWENTY_WAY, MINI_ONE_SHOT, MINI_FIVE_SHOT]
SHARED = dict(meta_lr=0.001, norm="batch_norm", conv=True, stop_grad=False, loss_reduction="per_class_sum",
              test_set=False, eval_tasks=600, eval_updates=10, baseline="None", pretrain_iterations=0)  # fmt: skip


@pytest.mark.parametrize("command", IMAGE_COMMANDS)
@pytest.mark.parametrize("evaluation", [{}, {"train": False, "test_set": True}], ids=["train", "evaluate"])
def test_the_published_image_command_lines_mean_the_same(command, evaluation):
  omniglot = command["datasource"] == "omniglot"
  implied = dict(num_classes=5, num_filters=64, max_pool=False) if omniglot else {}
  expected = implied | SHARED | command | evaluation
  config = resolve(**command, **evaluation).to_dict()
  assert {name: config[name] for name in expected} == expected
  assert directory_name(**command, **evaluation) == directory_name(**command)


@pytest.mark.parametrize(("task", "command"), [
  ({"datasource": "omniglot"}, FIVE_WAY),
  ({"datasource": "omniglot", "num_classes": 20}, TWENTY_WAY),
  ({"datasource": "miniimagenet"}, MINI_ONE_SHOT),
  # The paper's text says 2 tasks; the published command line repeats the 4 of 1-shot.
  ({"datasource": "miniimagenet", "update_batch_size": 5}, MINI_FIVE_SHOT | {"meta_batch_size": 2}),
])  # fmt: skip
def test_a_task_alone_gives_the_published_settings(task, command):
  assert directory_name(**task) == directory_name(**command)


@pytest.mark.parametrize("command", [FIVE_WAY, TWENTY_WAY, MINI_ONE_SHOT])
def test_five_shot_evaluation_finds_the_one_shot_run(command):
  five = {"train": False, "test_set": True, "update_batch_size": 5, "train_update_batch_size": 1}
  assert directory_name(**(command | five)) == directory_name(**command)
  task = {name: command[name] for name in ("datasource", "num_classes") if name in command}
  assert directory_name(**(task | five)) == directory_name(**command)


@pytest.mark.parametrize("given", [
  {"num_classes": 6}, {"num_filters": 32}, {"conv": False}, {"max_pool": True}, {"loss_reduction": "mean"},
  {"split": "alphabets"}, {"stop_grad": True}, {"learner": "anil"}, {"bn_mode": "support"}, {"mixed_precision": True},
], ids=str)  # fmt: skip
def test_what_shapes_training_on_images_changes_the_directory(given):
  assert directory_name(datasource="omniglot", **given) != directory_name(datasource="omniglot")


def test_what_saves_memory_leaves_the_directory():
  saving = directory_name(datasource="omniglot", task_chunk=4, checkpoint_inner_steps=True)
  assert saving == directory_name(datasource="omniglot")


def test_where_the_data_lies_leaves_the_directory():
  assert directory_name(datasource="omniglot", data_dir="elsewhere") == directory_name(datasource="omniglot")


@pytest.mark.parametrize("given", [
  {"baseline": "oracle", "datasource": "omniglot"},
  {"baseline": "pretrain", "datasource": "folder"},
  {"pretrain_iterations": 10, "datasource": "miniimagenet"},
  {"num_classes": 1, "datasource": "omniglot"},
  {"split": "alphabets", "datasource": "miniimagenet"},
  {"split": "alphabets"},
  {"split": "random", "datasource": "omniglot"},
  {"loss_reduction": "sum", "datasource": "omniglot"},
  {"loss_reduction": "per_class_sum"},
], ids=str)  # fmt: skip
def test_what_a_datasource_does_not_have_is_refused_by_name(given):
  with pytest.raises(UserError, match=f"^--{next(iter(given))}=.*expected") as error:
    resolve(**given)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("baseline", ["pretrain", "oracle"])
@pytest.mark.parametrize(
  ("given", "iterations"),
  [
    ({}, 70000),
    ({"pretrain_iterations": 30}, 30),
    ({"metatrain_iterations": 30}, 30),
    ({"pretrain_iterations": 30, "metatrain_iterations": 0}, 30),
    ({"pretrain_iterations": 30, "metatrain_iterations": 40}, 70),
  ],
)
def test_a_baseline_trains_for_as_long_as_is_said_under_either_name(baseline, given, iterations):
  config = resolve(baseline=baseline, **given)
  assert (config.method, config.iterations, config.pretrains_first) == (baseline, iterations, False)


def test_the_pretrained_baseline_is_the_same_run_under_both_names():
  by_flags = directory_name(pretrain_iterations=300, metatrain_iterations=0)
  assert directory_name(baseline="pretrain", pretrain_iterations=300) == by_flags


def test_both_counts_pretrain_before_they_metatrain():
  config = resolve(pretrain_iterations=30, metatrain_iterations=40)
  assert (config.method, config.iterations, config.pretrains_first) == ("maml", 40, True)


def test_random_trains_nothing():
  assert resolve(baseline="random").iterations == 0


@pytest.mark.parametrize(
  "given",
  [
    {"eval_tasks": 10},
    {"eval_updates": 0},
    {"eval_queries": 3},
    {"metatrain_iterations": 100000},
    {"logdir": "elsewhere"},
    {"log": False},
    {"export": False},
    {"export_half": True},
    {"resume": False},
    {"test_set": False},
    {"train": False, "test_iter": 1000},
    {"task_chunk": 5},
    {"checkpoint_inner_steps": True},
    {"train": False, "update_batch_size": 5, "train_update_batch_size": 10},
    {"train": False, "update_lr": 0.01, "train_update_lr": 0.001},
  ],
)
def test_what_does_not_shape_training_leaves_the_directory(given):
  assert directory_name(**given) == directory_name()


@pytest.mark.parametrize(
  "given",
  [
    {"seed": 1},
    {"meta_lr": 0.01},
    {"update_lr": 0.01},
    {"update_lr": 0.00100000001},
    {"num_updates": 2},
    {"meta_batch_size": 24},
    {"update_batch_size": 5},
    {"norm": "batch_norm"},
    {"stop_grad": True},
    {"pretrain_iterations": 10},
    {"baseline": "oracle"},
    {"baseline": "random"},
    {"learner": "reptile"},
    {"mixed_precision": True},
  ],
)
def test_what_shapes_training_changes_the_directory(given):
  assert directory_name(**given) != directory_name()


def test_the_initialisation_shapes_training():
  config = resolve()
  assert training_settings(config, "one") != training_settings(config, "two") != training_settings(config)


def test_a_whole_number_and_the_same_float_are_one_run():
  assert directory_name(update_lr=1) == directory_name(update_lr=1.0)


COUNTS = ("num_classes", "meta_batch_size", "update_batch_size", "num_updates", "num_filters", "eval_tasks",
          "eval_queries")  # fmt: skip
REFUSED = [
  *({name: value} for name in COUNTS for value in (0, -1, 2**31)),
  *({name: -1} for name in ("pretrain_iterations", "metatrain_iterations", "eval_updates", "seed")),
  *({name: v} for name in ("meta_lr", "update_lr") for v in (0.0, -0.1, float("nan"), float("inf"), float("-inf"))),
  {"metatrain_iterations": 0},
  {"metatrain_iterations": 2**31},
  {"seed": 2**62},
  {"meta_lr": 1e300},
  {"seed": 1.5},
  {"seed": "x"},
  {"seed": True},
  {"meta_lr": "fast"},
  {"train": 1},
  {"norm": ""},
  {"norm": "none"},
  {"norm": 3},
  {"baseline": ""},
  {"baseline": "Oracle"},
  {"train_update_batch_size": 0},
  {"train_update_batch_size": -2},
  {"train_update_lr": float("nan")},
  {"train_update_lr": 0.0},
  {"train_update_batch_size": 5},
  {"train_update_lr": 0.5},
  {"test_iter": 100},
  {"test_iter": 100, "train": False, "init_from": "somewhere"},
  {"test_iter": 100, "train": False, "baseline": "random"},
  {"init_from": "somewhere", "baseline": "random"},
  {"learner": "foml"},
  {"learner": "anil", "baseline": "pretrain"},
  {"stop_grad": True, "learner": "reptile"},
  {"checkpoint_inner_steps": True, "learner": "reptile"},
  {"checkpoint_inner_steps": True, "baseline": "oracle"},
  {"bn_mode": "batch", "norm": "batch_norm"},
  {"bn_mode": "support"},
  {"bn_mode": "running", "norm": "batch_norm", "baseline": "pretrain"},
  {"task_chunk": -1},
  {"task_chunk": 4},  # of 25 tasks
]


@pytest.mark.parametrize("given", REFUSED, ids=str)
def test_a_value_that_makes_no_sense_is_refused_by_name(given):
  with pytest.raises(UserError, match=f"^--{next(iter(given))}=.*expected") as error:
    resolve(**given)
  assert "\n" not in str(error.value)


def test_unknown_names_are_refused():
  with pytest.raises(UserError, match=re.escape("--datasource=imagenet: expected one of sinusoid")):
    resolve("imagenet")
  with pytest.raises(UserError, match="learning_rate: no such setting"):
    resolve(learning_rate=0.1)


@pytest.mark.parametrize(
  "given",
  [
    {"seed": 2**62 - 1},
    {"eval_updates": 0},
    {"eval_tasks": 1},
    {"eval_queries": 1},
    {"update_batch_size": 1, "meta_batch_size": 1},
    {"test_iter": 0},
    {"test_iter": -5, "train": False},
    {"metatrain_iterations": 0, "train": False},
    {"train_update_lr": 0.001},
    {"train_update_batch_size": 10},
    {"train_update_batch_size": -1, "train_update_lr": -1},
    {"baseline": "None"},
  ],
  ids=str,
)
def test_edge_values_that_make_sense_are_taken(given):
  resolve(**given)


def test_existing_and_new_folders_are_fine_and_nothing_is_created(tmp_path):
  check_paths(resolve(logdir=str(tmp_path)))
  check_paths(resolve(logdir=str(tmp_path / "a" / "b")))
  check_paths(resolve(logdir=tmp_path / "a", baseline="random", train=False))
  assert os.listdir(tmp_path) == []


def test_a_relative_folder_is_fine(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  check_paths(resolve(logdir="logs/sine/"))


@pytest.mark.parametrize(("given", "named"), [
  ({"logdir": ""}, "--logdir="),
  ({"logdir": "{tmp}/file"}, "--logdir={tmp}/file: {tmp}/file is a file"),
  ({"logdir": "{tmp}/file/sub"}, "--logdir={tmp}/file/sub: {tmp}/file is a file"),
  ({"logdir": "{tmp}/none", "train": False}, "--logdir={tmp}/none: no such folder"),
  ({"logdir": "{tmp}/" + 300 * "x"}, "File name too long"),
  ({"init_from": ""}, "--init_from="),
  ({"init_from": "{tmp}/none"}, "--init_from={tmp}/none: no such folder"),
  ({"init_from": "{tmp}/file"}, "--init_from={tmp}/file: this is a file"),
  ({"init_from": "{tmp}"}, "--init_from={tmp}: no SavedModel"),
])  # fmt: skip
def test_paths_that_cannot_work_are_refused_by_name(tmp_path, given, named):
  (tmp_path / "file").write_text("")
  filled = {k: v.format(tmp=tmp_path) if isinstance(v, str) else v for k, v in given.items()}
  with pytest.raises(UserError, match=re.escape(named.format(tmp=tmp_path))):
    check_paths(resolve(**{"logdir": str(tmp_path), **filled}))
