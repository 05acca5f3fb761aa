"""Settings, methods and domains, each described once: help, refusals, hashes, names and commands follow from that."""

import json
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from maml_tf.errors import UserError
from maml_tf.experiments import command_line, methods
from maml_tf.experiments.config import from_record, in_flags, resolve, run_name, train_command
from maml_tf.experiments.domains import DATASOURCES, DOMAINS
from maml_tf.experiments.settings import SETTINGS, TOPICS

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def parse(monkeypatch):
  """The config of a command line. The data need not be there: paths are checked elsewhere."""
  monkeypatch.setattr(command_line, "check_paths", lambda config: None)
  return lambda command: command_line.parse(["main.py", *shlex.split(command)])[0]


def flags_in(text):
  """The flags that help lists."""
  return set(re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE))


# What is described ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_setting_is_described(setting):
  assert setting.help and setting.topic in TOPICS
  assert setting.default is None or type(setting.default) is setting.kind
  assert setting.default is not None or setting.optional
  if setting.choices:
    assert setting.default in setting.choices
  if setting.of_domain:
    assert any(setting.name in domain.settings for domain in DOMAINS)
  if setting.of_method:
    assert any(setting.name in method.settings for method in methods.METHODS.values())
  assert setting.shown is None or setting.hashed or setting.name == "datasource"  # two runs with one name are one run


def test_domains_and_methods_name_settings_that_are_theirs():
  for domain in DOMAINS:
    assert domain.settings == {name for name in domain.settings if SETTINGS[name].of_domain}
  for method in methods.METHODS.values():
    assert set(method.settings) == {name for name in method.settings if SETTINGS[name].of_method}
    assert len(set(method.settings)) == len(method.settings)
    assert method.color and method.title


def test_places_in_a_name_are_different():
  places = [setting.shown[0] for setting in SETTINGS.values() if setting.shown is not None]
  assert len(set(places)) == len(places) and 10 not in places  # that of the method


# Help -----------------------------------------------------------------------------------------------------------------


def test_help_alone_lists_every_flag_by_topic():
  text = command_line.help_text()
  assert flags_in(text) == set(SETTINGS)
  titles = [line.removesuffix(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
  assert titles == list(TOPICS.values())


@pytest.mark.parametrize(
  ("datasource", "method"),
  [(d, m) for d, domain in DATASOURCES.items() for m, method in methods.METHODS.items() if domain.kind in method.kinds],
)
def test_help_of_a_datasource_shows_exactly_what_can_be_given_there(datasource, method):
  """What help shows can be given, and what it does not show is refused, whatever the value: its default too."""
  given = {methods.METHODS[method].flag: method}
  shown = flags_in(command_line.help_text(datasource, **given))
  config = resolve(datasource, **given)
  for name, setting in SETTINGS.items():
    value = getattr(config, name)
    value = setting.default if value is None or setting.problem(value) else value
    if value is None or name in ("datasource", "learner", "baseline") or setting.when is not None:
      continue
    if name in shown:
      resolve(datasource, **{"train": False, name: value} | given)
    elif setting.sentinel is None:
      with pytest.raises(UserError, match=f"^--{name}=.*: expected no such flag here: .* has no such setting$"):
        resolve(datasource, **given, **{name: value})


def test_help_of_the_command_line(tmp_path):
  done = subprocess.run(
    [sys.executable, str(ROOT / "scripts" / "main.py"), "--help", "--datasource=omniglot", "--learner=reptile"],
    capture_output=True, text=True, cwd=tmp_path,
  )  # fmt: skip
  assert (done.returncode, done.stderr) == (0, "")
  assert {"num_classes", "conv", "bn_mode", "image_size", "split"} <= flags_in(done.stdout)
  assert not flags_in(done.stdout) & {"stop_grad", "horizon", "max_kl", "pretrain_iterations", "render"}
  text = " ".join(done.stdout.split())
  assert "--metatrain_iterations meta-training iterations (default: 60000)" in text
  assert "--update_lr" in text and "(default: 0.4)" in text


# Refusals and records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "says"), [
  (dict(num_filters=64), "--num_filters=64: expected no such flag here: the domain sinusoid has no such setting"),
  (dict(learner="reptile", stop_grad=False), "--stop_grad=False: expected no such flag here: --learner=reptile"),
  (dict(baseline="oracle", num_updates=1), "--num_updates=1: expected no such flag here: --baseline=oracle"),
  (dict(datasource="point", outer="ppo", max_kl=0.01), "--max_kl=0.01: expected no such flag, or --outer=trpo with it"),
  (dict(datasource="point", meta_lr=0.001), "--meta_lr=0.001: expected no such flag, or --outer=vpg or ppo with it"),
])  # fmt: skip
def test_what_would_be_ignored_is_refused_even_with_its_default(given, says):
  with pytest.raises(UserError, match=re.escape(says)):
    resolve(**given)


def test_a_record_may_hold_what_meant_nothing_to_its_run():
  """Files of runs hold every setting; and those of older runs lack the newer ones."""
  for given in (dict(), dict(baseline="oracle"), dict(datasource="point", outer="ppo"), dict(learner="reptile")):
    config = resolve(**given)
    record = config.to_dict() | {"num_classes": 7} if config.datasource != "omniglot" else config.to_dict()
    for newer in ("image_size", "log_every", "validation_tasks"):
      del record[newer]
    again = from_record(json.loads(json.dumps(record)))
    assert run_name(again) == run_name(config)
    assert {n: v for n, v in again.to_dict().items() if again.applies(n)} == {
      n: v for n, v in config.to_dict().items() if config.applies(n)
    }
  with pytest.raises(UserError, match="expected the settings of a run"):
    from_record([])
  with pytest.raises(UserError, match="learning_rate: no such setting"):
    from_record({"datasource": "sinusoid", "learning_rate": 0.1})
  with pytest.raises(UserError, match="--meta_batch_size=0"):
    from_record({"datasource": "sinusoid", "meta_batch_size": 0})


def test_errors_of_the_library_name_flags_for_a_command_line():
  assert in_flags("Episodes(ways=30): only 20 classes") == "--num_classes=30: only 20 classes"
  assert in_flags("data_dir=x y: no such folder") == "--data_dir=x y: no such folder"
  assert in_flags("class_split=odd: there is none") == "--split=odd: there is none"
  assert in_flags("/a/file.png: not an image") == "/a/file.png: not an image"
  assert in_flags("nothing=3: not a setting") == "nothing=3: not a setting"
  code = "/a: no Omniglot; python -c \"tfds.load('omniglot', data_dir='/a')\""
  assert in_flags(code) == code


# Names and commands, which committed results and other people's runs hang on ------------------------------------------

# As the code before the redesign named them.
NAMES = [
  ("--datasource=sinusoid",
   "sinusoid.maml.mbs_25.ubs_10.numstep1.updatelr0.001.nonorm.seed0-f9c357dd"),
  ("--datasource=sinusoid --baseline=pretrain",
   "sinusoid.pretrain.mbs_25.ubs_10.nonorm.seed0-cd5282da"),
  ("--datasource=sinusoid --baseline=random --mixed_precision=True",
   "sinusoid.random.mbs_25.ubs_10.nonorm.seed0-8f9ed713"),
  ("--datasource=sinusoid --learner=metasgd",
   "sinusoid.metasgd.mbs_25.ubs_10.numstep1.updatelr0.001.nonorm.seed0-cd4ce993"),
  ("--datasource=sinusoid --learner=reptile",
   "sinusoid.reptile.mbs_25.ubs_10.numstep1.updatelr0.001.nonorm.seed0-8faa76b5"),
  ("--datasource=sinusoid --update_lr=0.33 --seed=3",
   "sinusoid.maml.mbs_25.ubs_10.numstep1.updatelr0.33.nonorm.seed3-f49cbcba"),
  ("--datasource=sinusoid --pretrain_iterations=10",
   "sinusoid.maml.mbs_25.ubs_10.numstep1.updatelr0.001.nonorm.seed0-4077fb3d"),
  ("--datasource=sinusoid --pretrain_iterations=10 --metatrain_iterations=0",
   "sinusoid.pretrain.mbs_25.ubs_10.nonorm.seed0-cd5282da"),
  ("--datasource=omniglot",
   "omniglot.maml.cls_5.mbs_32.ubs_1.numstep1.updatelr0.4.hidden64.batchnorm.seed0-9450916c"),
  ("--datasource=omniglot --num_classes=20",
   "omniglot.maml.cls_20.mbs_16.ubs_1.numstep5.updatelr0.1.hidden64.batchnorm.seed0-e8742b1a"),
  ("--datasource=omniglot --conv=False",
   "omniglot.maml.cls_5.mbs_32.ubs_1.numstep1.updatelr0.4.fc.batchnorm.seed0-0aa231ae"),
  ("--datasource=omniglot --learner=anil --bn_mode=running",
   "omniglot.anil.cls_5.mbs_32.ubs_1.numstep1.updatelr0.4.hidden64.batchnorm.seed0-569ac177"),
  ("--datasource=omniglot --num_classes=20 --split=alphabets",
   "omniglot.maml.cls_20.mbs_16.ubs_1.numstep5.updatelr0.1.hidden64.batchnorm.seed0-0cd1a146"),
  ("--datasource=miniimagenet --update_batch_size=5",
   "miniimagenet.maml.cls_5.mbs_2.ubs_5.numstep5.updatelr0.01.hidden32.maxpool.batchnorm.seed0-d6efcc7b"),
  ("--datasource=miniimagenet --mixed_precision=True",
   "miniimagenet.maml.cls_5.mbs_4.ubs_1.numstep5.updatelr0.01.hidden32.maxpool.batchnorm.seed0-342acc92"),
  ("--datasource=miniimagenet --stop_grad=True",
   "miniimagenet.maml.cls_5.mbs_4.ubs_1.numstep5.updatelr0.01.stopgrad.hidden32.maxpool.batchnorm.seed0-fb2b96e5"),
  ("--datasource=folder --learner=anil",
   "folder.anil.cls_5.mbs_4.ubs_1.numstep5.updatelr0.01.hidden32.maxpool.batchnorm.seed0-a867aa57"),
  ("--datasource=point --baseline=oracle",
   "point.oracle.mbs_1.rollouts10.kl0.01.seed0-a4f7d6fa"),
  ("--datasource=point",
   "point.maml.mbs_40.rollouts20.numstep1.updatelr0.5.kl0.01.seed0-c0049214"),
  ("--datasource=cheetah_dir",
   "cheetah_dir.maml.mbs_40.rollouts20.numstep1.updatelr0.1.kl0.02.seed0-cea27807"),
  ("--datasource=cheetah_vel --baseline=pretrain",
   "cheetah_vel.pretrain.mbs_1.rollouts100.kl0.01.seed0-d33d2084"),
  ("--datasource=ant_goal --inner=ratio",
   "ant_goal.maml.mbs_40.rollouts20.numstep1.updatelr0.1.ratio.kl0.01.seed0-4e8f7f77"),
  ("--datasource=ant_dir --hvp_subsample=0.5",
   "ant_dir.maml.mbs_40.rollouts40.numstep1.updatelr0.1.kl0.01.seed0-efa93871"),
  ("--datasource=bandit --outer=ppo",
   "bandit.maml.mbs_20.rollouts10.numstep1.updatelr0.5.ppo.seed0-99741249"),
  ("--datasource=tabular --hvp=finite_difference",
   "tabular.maml.mbs_20.rollouts10.numstep1.updatelr0.5.kl0.01.seed0-960f0893"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "name"), NAMES, ids=[flags for flags, _ in NAMES])
def test_a_run_directory_keeps_its_name(parse, flags, name):
  config = parse(flags)
  assert run_name(config) == name
  assert run_name(from_record(json.loads(json.dumps(config.to_dict())))) == name


@pytest.mark.parametrize("flags", [flags for flags, _ in NAMES])
def test_the_command_that_repeats_a_training_repeats_it(parse, flags):
  config = parse(flags)
  command = train_command(config).removeprefix("python scripts/main.py ")
  again = parse(command)
  repeated = {name for name, setting in SETTINGS.items() if setting.repeats}
  assert {n: getattr(again, n) for n in repeated} == {n: getattr(config, n) for n in repeated}
  assert len(shlex.split(command)) <= len(shlex.split(flags))


def committed():
  """(file, run) for every run in the committed results."""
  contents = ((path.name, json.loads(path.read_text())) for path in sorted((ROOT / "results").glob("*.json")))
  return [(name, run) for name, content in contents for run in content.get("runs", ()) if "config" in run]


def test_the_commands_and_checkpoints_of_committed_results_are_theirs(parse):
  runs, checkpoints = committed(), set()
  for file, run in runs:
    config = from_record(run["config"])
    name = run_name(config)
    if "train_command" in run:
      assert run["train_command"] == train_command(config), file
      assert run_name(parse(run["train_command"].removeprefix("python scripts/main.py "))) == name, file
    if run.get("checkpoint"):
      checkpoints.add(run["checkpoint"])
      assert run["checkpoint"] == f"results/checkpoints/{name}", file
      assert f"/{name} logs/ && " in run["continue_command"], file
      resumed = run["continue_command"].partition(" && python scripts/main.py ")[2]
      assert run_name(parse(resumed)) == name, file
  assert len(runs) > 30 and len(checkpoints) > 3


def test_committed_checkpoints_are_found_by_their_settings():
  folders = sorted((ROOT / "results" / "checkpoints").glob("*/config.json"))
  assert folders
  for path in folders:
    assert run_name(from_record(json.loads(path.read_text()))) == path.parent.name
