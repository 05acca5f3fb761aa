"""scripts/main.py as its user meets it: the published command lines, bad input, kills, and what it says.

Bad input that is refused before TensorFlow loads is tested on the real command line; what comes later mostly by calling
`main` in this process, since each import of TensorFlow costs seconds.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import warnings

import pytest
import small_runs

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "main.py"
SMALL = ("--eval_tasks=20", "--eval_queries=5", "--eval_updates=2", "--nojit_compile")


def command(*flags):
  return [sys.executable, str(SCRIPT), *flags]


def shell(*flags, **options):
  return subprocess.run(command(*flags), capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def call(script, capfd):
  """Calls the script's `main` in this process: (exit status, stdout, stderr)."""

  def run(*flags):
    capfd.readouterr()
    with warnings.catch_warnings():
      warnings.simplefilter("error", RuntimeWarning)  # it would be another line on stderr
      status = script.main(["main.py", *map(str, flags)])
    captured = capfd.readouterr()
    return status, captured.out, captured.err

  return run


def assert_one_line(status, stderr, *named):
  assert status in (1, 2)
  assert len(stderr.splitlines()) == 1, stderr
  assert stderr.startswith("main.py: ")
  assert "Traceback" not in stderr
  for part in named:
    assert str(part) in stderr


def run_directory(logdir, method="maml"):
  (path,) = (p for p in pathlib.Path(logdir).glob(f"sinusoid.{method}.*") if ".old-" not in p.name)
  return path


@pytest.fixture(scope="session")
def trained(script, tmp_path_factory):
  """A log directory with a run of 30 iterations, not to be written to."""
  logdir = tmp_path_factory.mktemp("trained")
  with contextlib.redirect_stdout(None):
    assert script.main(["main.py", *SMALL, f"--logdir={logdir}", "--metatrain_iterations=30"]) == 0
  return logdir


def test_tensorboard_has_the_settings_that_apply_and_what_came_of_them(trained):
  """On its HParams page, by the code that makes that page."""
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
  from tensorboard.plugins.hparams import metadata

  run = run_directory(trained)
  events = EventAccumulator(str(run / "events"), size_guidance={"tensors": 0}).Reload()
  content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
  settings = dict(metadata.parse_session_start_info_plugin_data(content).hparams)
  assert settings["method"].string_value == "maml" and settings["update_lr"].number_value == 0.001
  assert not {"num_filters", "num_classes", "horizon", "data_dir", "logdir", "resume"} & set(settings)
  results = json.loads((run / "results.json").read_text())["results"]
  shown = {t: e.tensor_proto for t in events.Tags()["tensors"] if t.startswith("final/") for e in events.Tensors(t)}
  numbers = sorted(proto.float_val[0] for proto in shown.values() if proto.float_val)
  assert numbers == pytest.approx(sorted(result["mse"]["mean"][2] for result in results.values()))


@pytest.fixture
def copied(trained, tmp_path):
  """A copy of `trained` of one's own."""
  return pathlib.Path(shutil.copytree(trained, tmp_path / "logs"))


# Refused before TensorFlow loads -------------------------------------------------------------------------------------

REFUSED_AT_ONCE = [
  (["--datasource=imagenet"], "--datasource=imagenet"),
  (["--datasource="], "--datasource="),
  (["--meta_batch_size=0"], "--meta_batch_size=0"),
  (["--update_batch_size=-1"], "--update_batch_size=-1"),
  (["--metatrain_iterations=-5"], "--metatrain_iterations=-5"),
  (["--metatrain_iterations=0"], "--metatrain_iterations=0"),
  (["--eval_tasks=0"], "--eval_tasks=0"),
  (["--num_updates=99999999999999999999999"], "--num_updates"),
  (["--meta_lr=1e300"], "--meta_lr=1e+300"),
  (["--meta_lr=nan"], "--meta_lr=nan"),
  (["--update_lr=inf"], "--update_lr=inf"),
  (["--meta_lr=-0.1"], "--meta_lr=-0.1"),
  (["--meta_lr=fast"], "--meta_lr=fast: expected a number"),
  (["--meta_lr="], "--meta_lr="),
  (["--seed=x"], "--seed=x: expected a whole number"),
  (["--seed=1.5"], "--seed=1.5: expected a whole number"),
  (["--seed=-1"], "--seed=-1"),
  (["--seed=4611686018427387904"], "--seed=4611686018427387904"),
  (["--seed"], "--seed"),
  (["--train=maybe"], "--train=maybe: expected True or False"),
  (["--train="], "--train="),
  (["--train", "False"], "False"),
  (["--nosuchflag=1"], "--nosuchflag"),
  (["--sed=1"], "--seed?"),
  (["sinusoid"], "sinusoid"),
  (["--norm="], "--norm="),
  (["--baseline=orcale"], "--baseline=orcale"),
  (["--logdir="], "--logdir="),
  (["--logdir={tmp}/file"], "--logdir={tmp}/file"),
  (["--logdir={tmp}/file/below"], "{tmp}/file"),
  (["--logdir={tmp}/none", "--train=False"], "--logdir={tmp}/none"),
  (["--logdir={tmp}/" + 300 * "x"], "too long"),
  (["--logdir={tmp}", "--init_from="], "--init_from="),
  (["--logdir={tmp}", "--init_from={tmp}/none"], "--init_from={tmp}/none"),
  (["--logdir={tmp}", "--init_from={tmp}/file"], "--init_from={tmp}/file"),
  (["--logdir={tmp}", "--init_from={tmp}"], "--init_from={tmp}"),
  (["--test_iter=100"], "--test_iter=100"),
  (["--train_update_lr=0.5"], "--train_update_lr=0.5"),
  (["--flagfile={tmp}/none"], "{tmp}/none"),
]


@pytest.mark.parametrize(("flags", "named"), REFUSED_AT_ONCE, ids=lambda value: str(value)[:60])
def test_refused_in_one_line_before_tensorflow_loads(without_tensorflow, tmp_path, flags, named):
  (tmp_path / "file").write_text("mine")
  done = shell(*(flag.format(tmp=tmp_path) for flag in flags), cwd=tmp_path, env=without_tensorflow)
  assert_one_line(done.returncode, done.stderr, named.format(tmp=tmp_path))
  assert done.stdout == ""
  assert os.listdir(tmp_path) == ["file"]
  assert (tmp_path / "file").read_text() == "mine"


WITHOUT_DATA = [
  ("omniglot", "{tmp}/none", ["no such folder", "{tmp}/none/tensorflow_datasets", "tfds.load('omniglot', data_dir='"]),
  ("omniglot", "{tmp}", ["no Omniglot here", "omniglot/images_background", "tfds.load('omniglot', data_dir='"]),
  ("omniglot", "{tmp}/file", ["this is a file"]),
  ("omniglot", "{tmp}/own", ["name the folder that holds it"]),
  ("miniimagenet", "{tmp}/none", ["no such folder", "{tmp}/none/miniimagenet", "ln -s"]),
  (
    "miniimagenet",
    "{tmp}",
    ["no miniImageNet here", "{{train,val,test}}/<class>/*.jpg", "cannot be downloaded", "ln -s"],
  ),
  (
    "folder",
    "{tmp}/none",
    ["no such folder", "{{train,val,test}}/<class>/<image>", "mkdir -p {tmp}/none/{{train,val,test}}"],
  ),
  ("folder", "{tmp}/own", ["no folder train/", "{{train,val,test}}/<class>/<image>"]),
  ("folder", "{tmp}/file", ["this is a file"]),
  ("folder", "", ["expected the name of a folder"]),
]


@pytest.mark.parametrize(("datasource", "data_dir", "named"), WITHOUT_DATA)
@pytest.mark.parametrize("mode", [[], ["--train=False", "--baseline=random"]], ids=["train", "evaluate"])
def test_missing_data_is_one_line_at_once(without_tensorflow, tmp_path, datasource, data_dir, named, mode):
  (tmp_path / "file").write_text("mine")
  (tmp_path / "own" / "images_background").mkdir(parents=True)
  data_dir = data_dir.format(tmp=tmp_path)
  flags = (f"--datasource={datasource}", f"--data_dir={data_dir}", *mode)
  done = shell(*flags, cwd=tmp_path, env=without_tensorflow)
  assert_one_line(
    done.returncode, done.stderr, f"--data_dir={data_dir}", *(part.format(tmp=tmp_path) for part in named)
  )
  assert sorted(os.listdir(tmp_path)) == ["file", "own"]


def test_the_environment_names_the_data_and_a_flag_wins(tmp_path):
  environment = os.environ | {"MAML_TF_DATA": str(tmp_path / "named")}
  done = shell("--datasource=omniglot", cwd=tmp_path, env=environment)
  assert_one_line(done.returncode, done.stderr, f"--data_dir={tmp_path / 'named'}: no such folder")
  done = shell("--datasource=omniglot", "--data_dir=flag", cwd=tmp_path, env=environment)
  assert_one_line(done.returncode, done.stderr, "--data_dir=flag: no such folder")
  del environment["MAML_TF_DATA"]
  done = shell("--datasource=omniglot", cwd=tmp_path, env=environment)
  assert_one_line(done.returncode, done.stderr, "--data_dir=data: no such folder")


def test_missing_data_is_noticed_without_tensorflow_and_numpy(tmp_path):
  code = (
    f"import runpy, sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"  # as `python scripts/main.py` does
    "sys.argv = ['main.py', '--datasource=omniglot', '--data_dir=none']\n"
    f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
    "except SystemExit: print([name for name in ('tensorflow', 'numpy') if name in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
  assert "--data_dir=none" in done.stderr
  assert done.stdout == "[]\n"


def test_help_lists_every_flag_with_its_default():
  done = shell("--help")
  assert (done.returncode, done.stderr) == (0, "")
  text = " ".join(done.stdout.split())
  for part in (
    "--metatrain_iterations meta-training iterations (default: sinusoid 70000, "
    "sine_or_line/omniglot/miniimagenet/folder/mnist 60000,",
    "--[no]stop_grad",
    "--meta_lr step size of the meta-optimiser, Adam (default: quadratics 0.8, others 0.001)",
    "--data_dir folder of the data sets; on the command line MAML_TF_DATA names it, where that is set (default: data)",
  ):
    assert part in text
  assert shell("-h").stdout == done.stdout


def read_only(folder):
  """A shell prefix that runs a command with `folder` read-only, in a mount namespace of its own; None: cannot."""
  mount = f'mount --bind "{folder}" "{folder}" && mount -o remount,ro,bind "{folder}" && exec "$@"'
  for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
    prefix = [*unshare, "sh", "-c", mount, "sh"]
    with contextlib.suppress(OSError):
      if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
        return prefix
  return None


@pytest.mark.parametrize("below", ["", "new", "new/er"])
def test_a_log_directory_that_cannot_be_written_is_refused_by_name(tmp_path, below):
  folder = tmp_path / "locked"
  folder.mkdir()
  prefix = read_only(folder)
  if prefix is None:
    if os.getuid() == 0:
      folder = pathlib.Path("/proc/self")  # where not even root can make a folder
    else:
      folder.chmod(0o555)
  done = subprocess.run(
    [*(prefix or []), *command(f"--logdir={folder / below}")], capture_output=True, text=True, timeout=60
  )
  assert_one_line(done.returncode, done.stderr, "--logdir", folder)
  if prefix is not None:
    assert "read-only" in done.stderr
    assert os.listdir(folder) == []


# The published command lines -----------------------------------------------------------------------------------------

PUBLISHED = ("--datasource=sinusoid", "--norm=None", "--update_batch_size=10")
TEN_SHOT = (*PUBLISHED, "--metatrain_iterations=30")
PRETRAINED = (*PUBLISHED, "--pretrain_iterations=30", "--metatrain_iterations=0")
ORACLE = (*PRETRAINED, "--baseline=oracle")


def test_the_published_command_lines_train_evaluate_and_leave_each_other_alone(call, tmp_path):
  logdir = f"--logdir={tmp_path}/logs/sine/"
  small = (*SMALL, "--noexport", "--nolog")
  for flags, method in ((TEN_SHOT, "maml"), (PRETRAINED, "pretrain"), (ORACLE, "oracle")):
    status, out, err = call(*small, *flags, logdir)
    assert (status, err) == (0, "")
    assert out.startswith(f"training {method} for 30 iterations in ")
    path = run_directory(tmp_path / "logs" / "sine", method)
    trained = json.loads((path / "results.json").read_text())
    assert trained["training"]["iteration"] == 30
    status, out, err = call(*small, *flags, logdir, "--train=False", "--test_set=True")
    assert (status, err) == (0, "")
    assert "after 30 iterations" in out
    evaluated = json.loads((path / "results.json").read_text())
    assert evaluated["results"] == trained["results"]
    assert (evaluated["split"], evaluated["method"]) == ("test", method)
  assert len(list((tmp_path / "logs" / "sine").iterdir())) == 3


# A trained run -------------------------------------------------------------------------------------------------------


def test_a_run_directory_holds_what_is_promised(trained):
  path = run_directory(trained)
  for name in ("config.json", "results.json", "metrics.csv", "validation.csv", "saved_model/saved_model.pb", "events"):
    assert (path / name).exists(), name
  assert list((path / "plots").glob("*.png"))
  assert json.loads((path / "config.json").read_text())["metatrain_iterations"] == 30
  assert small_runs.rows(path / "validation.csv")[-1]["iteration"] == "30"


def test_the_same_command_again_trains_nothing_and_evaluates(call, copied):
  before = (run_directory(copied) / "checkpoints" / "model30.npz").stat().st_mtime_ns
  results = json.loads((run_directory(copied) / "results.json").read_text())["results"]
  (run_directory(copied) / "results.json").write_text("{ corrupt")
  status, out, err = call(*SMALL, "--noexport", f"--logdir={copied}", "--metatrain_iterations=30")
  assert (status, err) == (0, "")
  assert "already trained to iteration 30" in out
  assert (run_directory(copied) / "checkpoints" / "model30.npz").stat().st_mtime_ns == before
  assert json.loads((run_directory(copied) / "results.json").read_text())["results"] == results


def test_more_iterations_continue_and_fewer_are_refused(call, copied):
  fast = (*SMALL, "--noexport", "--nolog", f"--logdir={copied}")
  status, out, err = call(*fast, "--metatrain_iterations=45")
  assert (status, err) == (0, "")
  assert "resuming from iteration 30" in out
  assert small_runs.rows(run_directory(copied) / "metrics.csv")[-1]["iteration"] == "45"
  config = (run_directory(copied) / "config.json").read_text()
  status, _, err = call(*fast, "--metatrain_iterations=40")
  assert_one_line(status, err, "--metatrain_iterations=40", run_directory(copied), "iteration 45")
  assert (run_directory(copied) / "config.json").read_text() == config


def test_an_earlier_checkpoint_can_be_evaluated_and_a_missing_one_is_named(call, copied):
  fast = (*SMALL, f"--logdir={copied}", "--train=False")
  status, out, _ = call(*fast, "--test_iter=30")
  assert status == 0
  assert "after 30 iterations" in out
  status, _, err = call(*fast, "--test_iter=29")
  assert_one_line(status, err, "--test_iter=29", "(there: 30)", run_directory(copied))


def test_evaluation_with_other_shots_and_rate_finds_the_training(call, copied):
  flags = ("--update_batch_size=5", "--train_update_batch_size=10", "--update_lr=0.01", "--train_update_lr=0.001")
  status, out, err = call(*SMALL, f"--logdir={copied}", "--train=False", *flags)
  assert (status, err) == (0, "")
  assert "alpha 0.01" in out
  assert len(list(copied.iterdir())) == 1


def test_evaluating_what_was_never_trained_is_refused_and_makes_no_folder(call, copied):
  status, _, err = call(*SMALL, f"--logdir={copied}", "--train=False", "--seed=5")
  assert_one_line(status, err, "--train=False", "no checkpoint", "seed5")
  assert len(list(copied.iterdir())) == 1


def test_resume_false_puts_the_older_run_aside(call, copied):
  older = (run_directory(copied) / "metrics.csv").read_text()
  flags = ("--metatrain_iterations=20", "--resume=False", "--noexport", "--nolog")
  status, out, err = call(*SMALL, *flags, f"--logdir={copied}")
  assert (status, err) == (0, "")
  (aside,) = copied.glob("*.old-*")
  assert str(aside) in out
  assert (aside / "metrics.csv").read_text() == older
  assert (aside / "checkpoints" / "model30.npz").exists()
  assert os.listdir(run_directory(copied) / "checkpoints")


def test_pretraining_before_metatraining_stays_inside_its_run(call, tmp_path):
  flags = (*SMALL, "--noexport", "--nolog", f"--logdir={tmp_path}", "--pretrain_iterations=20")
  status, out, err = call(*flags, "--metatrain_iterations=10")
  assert (status, err) == (0, "")
  path = run_directory(tmp_path)
  assert f"training pretrain for 20 iterations in {path / 'pretraining'}" in out
  assert (path / "pretraining" / "checkpoints" / "model20.npz").exists()
  status, out, _ = call(*flags, "--metatrain_iterations=10")
  assert status == 0
  assert "already trained to iteration 20" in out
  assert "already trained to iteration 10" in out


def test_a_notebook_gets_what_the_file_holds(trained, tmp_path):
  from maml_tf.experiments import run
  from maml_tf.experiments.config import resolve

  said = []
  settings = dict(eval_tasks=20, eval_queries=5, eval_updates=2, logdir=tmp_path, train=False, baseline="random")
  results = run.run(resolve(**settings), say=said.append)
  written = json.loads((pathlib.Path(results.pop("directory")) / "results.json").read_text())
  assert written == json.loads(json.dumps(results))
  assert any("Mean squared error, random" in line for line in said)


# Edge values that work -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [
  ["--eval_updates=0"],
  ["--eval_updates=0", "--baseline=pretrain"],
  ["--eval_tasks=1", "--eval_queries=1", "--update_batch_size=1", "--meta_batch_size=1", "--seed=4611686018427387903"],
  ["--update_lr=5"],  # diverges at test time: a table with nan in it
], ids=str)  # fmt: skip
def test_edge_values_run(call, tmp_path, flags):
  status, out, err = call(*SMALL, "--nolog", f"--logdir={tmp_path}", "--metatrain_iterations=2", *flags)
  assert (status, err) == (0, "")
  assert "Mean squared error" in out
  (results,) = tmp_path.rglob("results.json")
  json.loads(results.read_text(), parse_constant=lambda constant: pytest.fail(constant))


# Failures after TensorFlow has loaded --------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["--meta_lr=1e30"], ["--update_lr=1e30"]], ids=str)
def test_a_rate_that_diverges_stops_with_its_step(call, tmp_path, flags):
  status, _, err = call(*SMALL, f"--logdir={tmp_path}", "--metatrain_iterations=30", *flags)
  assert_one_line(status, err, "infinite or NaN at meta-iteration", "--update_lr")


def test_divergence_keeps_the_last_checkpoint_and_the_results(call, copied):
  """A run that goes on from a checkpoint whose weights are about to overflow."""
  import numpy as np

  from maml_tf.training import checkpoints

  newest = run_directory(copied) / "checkpoints" / "model30.npz"
  state, metadata = checkpoints.read(newest)
  state["weights"] = {name: weight * np.float32(1e25) for name, weight in state["weights"].items()}
  checkpoints.write(newest, state, metadata)
  kept = newest.read_bytes()
  results = (run_directory(copied) / "results.json").read_text()
  status, _, err = call(*SMALL, f"--logdir={copied}", "--metatrain_iterations=60")
  assert_one_line(status, err, "at meta-iteration 31", "the checkpoint of iteration 30 is kept")
  assert newest.read_bytes() == kept
  assert (run_directory(copied) / "results.json").read_text() == results


def test_fine_tuning_that_always_diverges_is_one_line(call, tmp_path):
  flags = ("--baseline=pretrain", "--pretrain_iterations=1", "--meta_lr=1e12", "--nolog")
  status, _, err = call(*SMALL, f"--logdir={tmp_path}", *flags)
  assert_one_line(status, err, "diverge", "--meta_lr")


def test_a_truncated_checkpoint_falls_back_and_says_so(call, copied):
  checkpoints = run_directory(copied) / "checkpoints"
  shutil.copy(checkpoints / "model30.npz", checkpoints / "model31.npz")
  with open(checkpoints / "model31.npz", "r+b") as file:
    file.truncate(500)
  status, out, err = call(*SMALL, f"--logdir={copied}", "--train=False")
  assert (status, err) == (0, "")
  assert "model31.npz: damaged checkpoint" in out
  assert "after 30 iterations" in out


@pytest.mark.parametrize("mode", ["--train=False", "--metatrain_iterations=60"])
def test_all_checkpoints_damaged_is_one_line_and_touches_nothing(call, copied, mode):
  for file in (run_directory(copied) / "checkpoints").iterdir():
    file.write_bytes(b"damaged")
  status, _, err = call(*SMALL, f"--logdir={copied}", mode)
  assert_one_line(status, err, "every checkpoint is damaged", run_directory(copied))
  assert sorted(os.listdir(run_directory(copied) / "checkpoints")) == ["best.npz", "model30.npz"]


@pytest.mark.parametrize("mode", ["--train=False", "--metatrain_iterations=60"])
def test_a_checkpoint_of_a_foreign_structure_is_one_line(call, copied, mode):
  from maml_tf.training import checkpoints

  newest = run_directory(copied) / "checkpoints" / "model30.npz"
  _, metadata = checkpoints.read(newest)
  checkpoints.write(newest, {"weights": {"another": [1.0]}}, metadata)
  status, _, err = call(*SMALL, f"--logdir={copied}", mode)
  assert_one_line(status, err, newest, "another")


@pytest.mark.parametrize("name", ["metrics.csv", "validation.csv", "results.json", "config.json"])
def test_a_folder_in_the_place_of_a_file_is_one_line(call, copied, name):
  path = run_directory(copied) / name
  path.unlink()
  path.mkdir()
  status, _, err = call(*SMALL, "--noexport", f"--logdir={copied}", "--metatrain_iterations=31")
  assert_one_line(status, err, path)


@pytest.mark.parametrize("name", ["plots", "events", "checkpoints", "saved_model"])
def test_a_file_in_the_place_of_a_folder_is_one_line(call, copied, name):
  path = run_directory(copied) / name
  shutil.rmtree(path)
  path.write_text("mine")
  status, _, err = call(*SMALL, f"--logdir={copied}", "--metatrain_iterations=31")
  assert_one_line(status, err, path)
  assert path.read_text() == "mine"


def test_a_full_disk_is_one_line(tmp_path):
  mount = f'mount -t tmpfs -o size=40k tmpfs "{tmp_path}" && exec "$@"'
  prefix = ["unshare", "--mount", "sh", "-c", mount, "sh"]
  try:
    possible = subprocess.run([*prefix, "true"], capture_output=True).returncode == 0
  except OSError:
    possible = False
  if not possible:
    pytest.skip("no small file system can be mounted here")
  done = subprocess.run(
    [*prefix, *command(*SMALL, f"--logdir={tmp_path}", "--metatrain_iterations=30")],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert_one_line(done.returncode, done.stderr, tmp_path, "No space left")


# Starting from a SavedModel ------------------------------------------------------------------------------------------


def test_init_from_trains_and_evaluates(call, trained, tmp_path):
  flags = (*SMALL, "--noexport", "--nolog", f"--init_from={run_directory(trained) / 'saved_model'}")
  status, _, err = call(*flags, f"--logdir={tmp_path / 'train'}", "--metatrain_iterations=2")
  assert (status, err) == (0, "")
  status, _, err = call(*flags, f"--logdir={tmp_path / 'evaluate'}", "--train=False")
  assert (status, err) == (0, "")
  of_export = json.loads((run_directory(tmp_path / "evaluate") / "results.json").read_text())["results"]
  of_run = json.loads((run_directory(trained) / "results.json").read_text())["results"]
  assert of_export == of_run


@pytest.mark.parametrize("flags", [["--norm=batch_norm"], ["--baseline=oracle"]], ids=str)
def test_init_from_another_architecture_is_one_line(call, trained, tmp_path, flags):
  model = run_directory(trained) / "saved_model"
  status, _, err = call(*SMALL, f"--init_from={model}", f"--logdir={tmp_path}", *flags)
  assert_one_line(status, err, f"--init_from={model}", "another architecture")


@pytest.mark.parametrize("damage", ["graph", "empty graph", "weights", "index", "no variables"])
def test_init_from_a_damaged_model_is_one_line(call, trained, tmp_path, damage):
  model = pathlib.Path(shutil.copytree(run_directory(trained) / "saved_model", tmp_path / "model"))
  if damage == "graph":
    content = (model / "saved_model.pb").read_bytes()
    (model / "saved_model.pb").write_bytes(content[: len(content) // 2])
  elif damage == "empty graph":
    (model / "saved_model.pb").write_bytes(b"")
  elif damage == "no variables":
    shutil.rmtree(model / "variables")
  else:
    suffix = "*.data*" if damage == "weights" else "*.index"
    (file,) = (model / "variables").glob(suffix)
    file.write_bytes(file.read_bytes()[:20])
  status, _, err = call(*SMALL, f"--init_from={model}", f"--logdir={tmp_path / 'logs'}")
  assert_one_line(status, err, f"--init_from={model}")
  assert not (tmp_path / "logs").exists()


# Two processes, signals, pipes ---------------------------------------------------------------------------------------

HOLD = (
  "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
)


@pytest.mark.parametrize("mode", ["--train=False", "--metatrain_iterations=60", "--resume=False"])
def test_a_run_in_use_is_refused_with_the_process_and_the_folder(call, copied, mode):
  lock = run_directory(copied) / "lock"
  with subprocess.Popen(
    [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
  ) as other:
    other.stdout.readline()
    lock.write_text(f"{other.pid}\n")
    status, _, err = call(*SMALL, f"--logdir={copied}", mode)
    other.kill()
  assert_one_line(status, err, f"pid {other.pid}", run_directory(copied))
  assert len(list(copied.iterdir())) == 1


LONG = ("--metatrain_iterations=1100", "--noexport", "--nolog")


@contextlib.contextmanager
def start(*flags):
  """A running command, which a failing test leaves no trace of."""
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  with subprocess.Popen(command(*SMALL, *flags), **pipes) as process:
    try:
      yield process
    finally:
      process.kill()


def wait_for(path, pattern, process):
  while not list(path.rglob(pattern)) and process.poll() is None:
    time.sleep(0.01)


def test_a_killed_command_continues_to_the_same_bits(call, tmp_path):
  with start(*LONG, f"--logdir={tmp_path / 'killed'}") as process:
    wait_for(tmp_path, "model1000.npz", process)
    process.kill()
    process.wait()
  for name in ("killed", "whole"):
    status, out, err = call(*SMALL, *LONG, f"--logdir={tmp_path / name}")
    assert (status, err) == (0, "")
    assert ("resuming from iteration 1000" in out) == (name == "killed")
  small_runs.assert_same_run(run_directory(tmp_path / "killed"), run_directory(tmp_path / "whole"), 1100)
  record = json.loads((run_directory(tmp_path / "killed") / "training.json").read_text())
  assert [started["iteration"] for started in record["starts"]] == [0, 1000]  # the killed command is one of them


@pytest.mark.parametrize("moment", ["starting", "training"])
def test_ctrl_c_is_said_to_be_heard_then_what_is_kept_and_130(tmp_path, moment):
  with start("--metatrain_iterations=1000000", f"--logdir={tmp_path}") as process:
    if moment == "starting":
      time.sleep(1.0)
    else:
      assert process.stdout.readline().startswith("training maml")  # said at once, though it goes into a pipe
      wait_for(tmp_path, "metrics.csv", process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
  assert process.returncode == 130
  *heard, last = err.splitlines()
  assert last.startswith("main.py: interrupted"), err
  assert len(heard) <= 1, err
  assert all(line.startswith("SIGINT: stopping") for line in heard), err
  if moment == "training":
    assert heard
    assert "is kept" in last


def test_a_reader_that_leaves_is_one_line(tmp_path):
  with start(*LONG, f"--logdir={tmp_path}") as process:
    process.stdout.close()
    err = process.stderr.read()
    process.wait()
  assert_one_line(process.returncode, err, "output")


def test_evaluations_leave_the_results_and_the_time_of_the_training(tmp_path, monkeypatch):
  """The published sequence: train, then evaluate; the table and the wall time of the training stay."""
  from maml_tf.experiments import provenance, run
  from maml_tf.experiments.config import resolve

  common = dict(logdir=str(tmp_path), eval_tasks=40, jit_compile=False, log=False)
  monkeypatch.setattr(provenance, "commit", lambda: "first")
  trained = run.run(resolve(**common, metatrain_iterations=60), command="train", say=lambda line: None)
  folder = pathlib.Path(trained["directory"])
  before = (folder / "results.json").read_bytes()
  other = dict(common, eval_tasks=20, train=False, test_set=False, metatrain_iterations=60)
  evaluated = run.run(resolve(**other), command="evaluate", say=lambda line: None)
  assert (folder / "results.json").read_bytes() == before
  assert json.loads((folder / "evaluation.json").read_text())["split"] == "validation"
  assert evaluated["training"]["seconds"] == trained["training"]["seconds"] > 0
  again = run.run(resolve(**common, metatrain_iterations=60), command="again", say=lambda line: None)
  assert again["training"] == trained["training"]
  monkeypatch.setattr(provenance, "commit", lambda: "second")
  longer = run.run(resolve(**common, metatrain_iterations=100), command="more", say=lambda line: None)
  assert longer["training"]["commands"] == ["train", "more"]
  assert longer["training"]["starts"] == [
    {"iteration": 0, "command": "train", "commit": "first"}, {"iteration": 60, "command": "more", "commit": "second"},
  ]  # fmt: skip
  assert longer["training"]["timed_iterations"] == 100
  assert longer["training"]["seconds"] > trained["training"]["seconds"]
