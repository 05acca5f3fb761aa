"""Data that is missing, damaged, locked away or made by somebody else at the same time: what happens, what is said."""

import http.server
import importlib.util
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from real_data import REAL, needs_real_data

from maml_tf import caches
from maml_tf.datasets import image_bank, image_folder, locate, omniglot
from maml_tf.datasets.records import DATASETS
from maml_tf.errors import UserError

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "main.py"
# A port where nobody listens: the same for every machine, with a network or without one.
WITHOUT_NETWORK = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "no_proxy": ""}


def make_folder(root, classes=2, per_class=3, value=0):
  for split in locate.SPLITS:
    for c in range(classes):
      folder = root / split / f"{split}_{c}"
      folder.mkdir(parents=True)
      for i in range(per_class):
        Image.new("RGB", (9, 9), (value + 10 * c + i, 0, 0)).save(folder / f"{i}.png")
  return root


def link_miniimagenet(data_dir):
  """The real classes, as links to their folders; returns `data_dir`/miniimagenet."""
  root = data_dir / "miniimagenet"
  for split in locate.SPLITS:
    (root / split).mkdir(parents=True)
    for folder in (pathlib.Path(REAL) / "miniimagenet" / split).iterdir():
      (root / split / folder.name).symlink_to(folder)
  return root


def own_copy(folder):
  """Puts a copy that can be changed in the place of a link."""
  original = folder.resolve()
  folder.unlink()
  folder.mkdir()
  for path in original.iterdir():
    shutil.copyfile(path, folder / path.name)
  return folder


@pytest.fixture
def call(tmp_path, capfd):
  """Calls `main` of scripts/main.py in this process; returns (exit status, stderr)."""
  spec = importlib.util.spec_from_file_location("main_script_data", SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)

  def run(*flags):
    logs = tmp_path / "logs"
    status = module.main(["main.py", *map(str, flags), "--metatrain_iterations=1", f"--logdir={logs}"])
    assert not logs.exists()
    return status, capfd.readouterr().err

  return run


def assert_one_line(result, status, *named):
  assert result[0] == status, result[1]
  assert result[1].startswith("main.py: ") and len(result[1].splitlines()) == 1, result[1]
  for part in named:
    assert part in result[1]


def unprivileged():
  """A command's prefix that makes root obey permissions like everybody else."""
  if os.geteuid() != 0:
    return []
  dropped = "-dac_override,-dac_read_search"
  prefix = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"]
  if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
    pytest.skip("root cannot lay down its privileges here")
  return prefix


def shell(*flags, prefix=(), **environment):
  done = subprocess.run(
    [*prefix, sys.executable, str(SCRIPT), *map(str, flags)],
    capture_output=True, text=True, timeout=120, env=os.environ | environment,
  )  # fmt: skip
  return done.returncode, done.stderr


# Real data, damaged ---------------------------------------------------------------------------------------------------


@needs_real_data
def test_a_truncated_image_of_miniimagenet_is_named(tmp_path, call):
  folder = own_copy(link_miniimagenet(tmp_path) / "train" / "n01532829")
  image = sorted(folder.iterdir())[2]
  image.write_bytes(image.read_bytes()[:500])
  result = call("--datasource=miniimagenet", f"--data_dir={tmp_path}")
  assert_one_line(result, 1, f"{image}: not a readable image (", "truncated", "replace or remove the file")
  assert list((tmp_path / "maml_tf_cache").iterdir()) == []


@needs_real_data
def test_a_missing_image_of_miniimagenet_is_noticed_before_anything_is_decoded(tmp_path, call):
  root = link_miniimagenet(tmp_path)
  min(own_copy(root / "train" / "n04604644").iterdir()).unlink()
  result = call("--datasource=miniimagenet", f"--data_dir={tmp_path}")
  assert_one_line(result, 1, f"{root}: class n04604644 has 599 images, expected 600; complete the folder")
  assert not (tmp_path / "maml_tf_cache").exists()


@needs_real_data
def test_a_missing_class_is_noticed_before_tensorflow_loads(without_tensorflow, tmp_path):
  root = link_miniimagenet(tmp_path)
  (root / "train" / "n01532829").unlink()
  result = shell("--datasource=miniimagenet", f"--data_dir={tmp_path}", **without_tensorflow)
  assert_one_line(result, 2, f"{root}/train: 63 classes, miniImageNet has 64 here", "n01532829")


@needs_real_data
@pytest.mark.parametrize(("change", "message"), [
  (lambda root: (root / "train" / "n01532829").rename(root / "val" / "n01532829"),
   r"val/n01532829: this class belongs to train/; move it there"),
  (lambda root: (root / "train" / "n01532829").unlink(),
   r"train: 63 classes, miniImageNet has 64 here; copy the missing ones there, the first is n01532829"),
  (lambda root: (root / "test" / "n00000001").mkdir(), r"test/n00000001: no class of miniImageNet; remove it"),
], ids=["wrong split", "63 classes", "unknown class"])  # fmt: skip
def test_split_folders_are_held_against_the_lists(tmp_path, change, message):
  root = link_miniimagenet(tmp_path)
  DATASETS["miniimagenet"].check(tmp_path)
  change(root)
  with pytest.raises(UserError, match=message):
    DATASETS["miniimagenet"].check(tmp_path)


@needs_real_data
@pytest.mark.parametrize("locked", ["miniimagenet", "miniimagenet/train"])
def test_a_folder_that_may_not_be_entered_is_named(tmp_path, locked):
  link_miniimagenet(tmp_path)
  (tmp_path / locked).chmod(0)
  try:
    result = shell("--datasource=miniimagenet", f"--data_dir={tmp_path}", prefix=unprivileged())
  finally:
    (tmp_path / locked).chmod(0o755)
  assert_one_line(result, 2, str(tmp_path / locked), "Permission denied", "read")


@needs_real_data
@pytest.mark.parametrize(("locked", "advice"), [
  ("n01532829", "expected a folder that can be read"),
  ("n01532829/n0153282900000005.jpg", "make it readable, or replace it"),
])  # fmt: skip
def test_a_class_folder_or_image_without_permission_is_named(tmp_path, locked, advice):
  train = link_miniimagenet(tmp_path) / "train"
  own_copy(train / "n01532829")
  (train / locked).chmod(0)
  code = (
    "import sys\nfrom maml_tf.datasets import miniimagenet\nfrom maml_tf.errors import UserError\n"
    "try: miniimagenet.load(sys.argv[1], sys.argv[1] + '/cache', 'train')\n"
    "except UserError as error: print(error)"
  )
  command = [*unprivileged(), sys.executable, "-c", code, str(tmp_path)]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
  finally:
    (train / locked).chmod(0o755)
  assert done.stdout.startswith(f"{train / locked}: ") and advice in done.stdout, done
  assert "Permission denied" in done.stdout


@needs_real_data
def test_omniglot_has_too_few_drawings_for_many_shots(call):
  result = call("--datasource=omniglot", f"--data_dir={REAL}", "--update_batch_size=11", "--split=alphabets")
  assert_one_line(result, 1, "has 20 images, but 11 shots and 11 queries need 22; lower ")


@needs_real_data
def test_omniglot_without_some_alphabets_and_drawings(tmp_path, call, monkeypatch):
  shutil.copytree(pathlib.Path(REAL) / "omniglot" / "images_evaluation", tmp_path / "omniglot" / "images_evaluation")
  (tmp_path / "omniglot" / "images_background").mkdir()
  flags = ("--datasource=omniglot", f"--data_dir={tmp_path}")
  assert_one_line(call(*flags), 1, f"{tmp_path}/omniglot: 659 characters, Omniglot has 1623; unpack it anew")
  monkeypatch.setattr(omniglot, "NUM_CLASSES", 659)
  next((tmp_path / "omniglot" / "images_evaluation" / "Tengwar" / "character07").glob("*.png")).unlink()
  assert_one_line(call(*flags), 1, "class Tengwar/character07 has 19 images, expected 20; complete the folder")
  assert not (tmp_path / "maml_tf_cache").exists()


@needs_real_data
def test_a_damaged_tfds_folder_is_named(tmp_path, call):
  shutil.copytree(
    pathlib.Path(REAL) / "tensorflow_datasets" / "omniglot", tmp_path / "tensorflow_datasets" / "omniglot",
    copy_function=shutil.copyfile,
  )  # fmt: skip
  folder = tmp_path / "tensorflow_datasets" / "omniglot" / "3.0.0"
  subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=True)
  records = next(folder.glob("omniglot-train.tfrecord*"))
  records.write_bytes(records.read_bytes()[:100_000])
  flags = ("--datasource=omniglot", f"--data_dir={tmp_path}")
  assert_one_line(call(*flags), 1, f"{folder}: TensorFlow Datasets cannot read this (", "remove it and prepare it anew")
  (folder / "dataset_info.json").write_text("{")
  assert_one_line(call(*flags), 1, f"{folder}: TensorFlow Datasets cannot read this (", "remove it and prepare it anew")


# The cache ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
  return make_folder(tmp_path / "data")


def load(folder, cache, split="train"):
  return image_folder.load(folder, cache, split, (9, 9), 3)


def test_a_disk_that_is_full_leaves_no_cache(folder, call):
  """The largest size of a file stands in for the disk: it can be set without being root."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # three images of 84 x 84 x 3 bytes do not fit
  try:
    result = call("--datasource=folder", f"--data_dir={folder}")
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  cache = folder / "maml_tf_cache"
  assert_one_line(result, 1, f"{cache}: cannot write the image cache (File too large); it needs 0 MB", "make room")
  assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(folder, tmp_path, call, monkeypatch):
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("HOME", str(tmp_path / "file"))
  allowed = os.access
  monkeypatch.setattr(  # the data is on a read-only disk
    os, "access", lambda path, mode: allowed(path, mode) and not (mode & os.W_OK and path == folder)
  )
  result = call("--datasource=folder", f"--data_dir={folder}")
  assert_one_line(result, 1, f"{tmp_path}/file/.cache/maml_tf/banks: cannot write the image cache (Not a directory)")


BUILD = """
import sys, time
from maml_tf.datasets import image_bank, image_folder
original = image_bank.decode
def decode(*arguments):
  with open(sys.argv[3], "a") as file:
    file.write("x")
  time.sleep(float(sys.argv[4]))
  return original(*arguments)
image_bank.decode = decode
bank = image_folder.load(sys.argv[1], sys.argv[2], "train", (9, 9), 3)
print(bank.images.tobytes().hex())
"""


def build(folder, cache, decoded, seconds):
  command = [sys.executable, "-c", BUILD, str(folder), str(cache), str(decoded), str(seconds)]
  return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(condition):
  limit = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < limit
    time.sleep(0.02)


def test_a_killed_build_leaves_nothing_that_is_taken_for_a_cache(folder, tmp_path):
  cache, decoded = tmp_path / "cache", tmp_path / "decoded"
  with build(folder, cache, decoded, seconds=60) as process:
    wait_for(decoded.exists)
    process.send_signal(signal.SIGKILL)
  assert [path.name.endswith(".half") for path in cache.iterdir()] == [True]
  bank = load(folder, cache)
  assert bank.images.shape == (6, 9, 9, 3)
  (left,) = cache.iterdir()  # what the killed process left is gone
  assert left.name.startswith("data-train-")


def test_two_processes_at_once_decode_once(folder, tmp_path):
  cache, decoded = tmp_path / "cache", tmp_path / "decoded"
  with build(folder, cache, decoded, 0.3) as one, build(folder, cache, decoded, 0.3) as other:
    outputs = {one.communicate(timeout=60)[0], other.communicate(timeout=60)[0]}
  assert (one.returncode, other.returncode) == (0, 0)
  assert outputs == {load(folder, cache).images.tobytes().hex() + "\n"}
  assert decoded.read_text() == 6 * "x"
  assert len(list(cache.iterdir())) == 1


def test_without_locks_both_build_and_one_counts(folder, tmp_path, monkeypatch):
  def refuse(*arguments):
    raise OSError("this file system has no locks")

  monkeypatch.setattr(caches.fcntl, "flock", refuse)
  original = image_bank._decode_all

  def overtaken(*arguments):
    monkeypatch.setattr(image_bank, "_decode_all", original)
    load(folder, tmp_path / "cache")  # what the other process does in the meantime
    return original(*arguments)

  monkeypatch.setattr(image_bank, "_decode_all", overtaken)
  assert load(folder, tmp_path / "cache").images.shape == (6, 9, 9, 3)
  assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cache_of_other_files_of_the_same_names_sizes_and_times_is_not_used(tmp_path):
  folders = [make_folder(tmp_path / place / "data", value=value) for place, value in (("one", 0), ("two", 100))]
  for path in (path for folder in folders for path in folder.rglob("*.png")):
    os.utime(path, ns=(0, 0))
  one, two = (load(folder, tmp_path / "cache") for folder in folders)
  assert int(one.images.max()) < 100 <= int(two.images[..., 0].min())
  assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_cache_is_readable_for_others_as_far_as_the_umask_says(folder, tmp_path):
  before = os.umask(0o022)
  try:
    load(folder, tmp_path / "cache")
  finally:
    os.umask(before)
  (built,) = (tmp_path / "cache").iterdir()
  assert [oct(path.stat().st_mode & 0o777) for path in (built, built / "images.npy")] == ["0o755", "0o644"]


# Images of one's own --------------------------------------------------------------------------------------------------


def test_more_than_eight_bits_are_refused_and_hidden_files_passed_over(folder, tmp_path):
  (folder / "train" / "train_0" / "._0.png").write_bytes(b"what macOS leaves beside a file")
  assert load(folder, tmp_path / "cache").images.shape[0] == 6
  deep = folder / "train" / "train_0" / "deep.png"
  Image.fromarray(np.full((9, 9), 40_000, np.uint16)).save(deep)
  with pytest.raises(UserError, match=r"deep\.png: not a readable image \(more than 8 bits per channel\); replace"):
    load(folder, tmp_path / "cache")


def test_a_photograph_is_turned_as_its_exif_data_say(folder, tmp_path):
  """Each of the eight orientations is made from the upright image by Pillow's own transpositions, and read back so."""
  upright = np.zeros([9, 9, 3], np.uint8)
  upright[:4, :, 0], upright[:, :3, 1] = 250, 120
  # How the camera's sensor saw what is upright once a viewer has followed the tag (EXIF 2.32, tag 0x0112).
  seen = {
    1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
    6: np.rot90(upright, 1), 7: np.rot90(upright.transpose(1, 0, 2), 2), 8: np.rot90(upright, -1),
  }  # fmt: skip
  shutil.rmtree(folder / "train" / "train_0")
  (folder / "train" / "train_0").mkdir()
  for orientation, pixels in seen.items():
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "train" / "train_0" / f"{orientation}.png", exif=exif)
  bank = load(folder, tmp_path / "cache")
  for image in bank.images[bank.offsets[0] : bank.offsets[1]]:
    np.testing.assert_array_equal(image, upright)


@pytest.mark.parametrize("kind", ["gif", "webp", "tiff", "png"])
def test_of_an_animation_the_first_image_counts_and_transparency_is_left_out(folder, tmp_path, kind):
  first = Image.new("RGBA", (9, 9), (255, 0, 0, 255))
  others = [Image.new("RGBA", (9, 9), (0, 0, 255, 90)) for _ in range(2)]
  options = {"lossless": True} if kind == "webp" else {}
  first.save(folder / "train" / "train_0" / f"moves.{kind}", save_all=True, append_images=others, **options)
  images = load(folder, tmp_path / "cache").images
  assert images.shape == (7, 9, 9, 3)
  assert [255, 0, 0] in images[:, 4, 4].tolist() and int(images[..., 2].max()) == 0


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_every_usual_mode_of_an_image_is_read(folder, tmp_path, mode):
  suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
  Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(folder / "train" / "train_0" / f"white.{suffix}")
  assert [255, 255, 255] in load(folder, tmp_path / "cache").images[:, 4, 4].tolist()


def test_a_link_to_nowhere_is_named(folder, tmp_path):
  (folder / "train" / "train_0" / "gone.png").symlink_to(tmp_path / "nowhere")
  with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file or directory\)"):
    load(folder, tmp_path / "cache")


def test_a_pipe_in_the_place_of_an_image_is_named_and_not_waited_for(folder, call):
  os.mkfifo(folder / "train" / "train_0" / "pipe.png")
  result = call("--datasource=folder", f"--data_dir={folder}")
  assert_one_line(result, 1, f"{folder}/train/train_0/pipe.png: not a regular file; replace or remove it")


@pytest.mark.parametrize("name", [b"train_0/caf\xe9.png", b"class\xe9/0.png"])
def test_a_name_that_is_not_utf_8_is_named(folder, call, name):
  path = os.fsencode(folder / "train") + b"/" + name
  os.makedirs(os.path.dirname(path), exist_ok=True)
  shutil.copyfile(folder / "train" / "train_0" / "0.png", path)
  result = call("--datasource=folder", f"--data_dir={folder}")
  assert_one_line(result, 1, f"{folder}/train/", "\\xe9", "this name is not UTF-8; rename it")


def test_other_files_may_have_any_name(folder):
  path = os.fsencode(folder / "train" / "train_0") + b"/notes.\xe9"
  with open(path, "wb"):
    bank = DATASETS["folder"].load(folder, "train", image_size=4)
  assert bank.summary() == "2 classes, 6 images; passed over 1 file of other kinds: 1 .\\xe9"


@pytest.mark.parametrize(
  ("data_dir", "shown"), [("a\0b", r"a\x00b"), ("caf\udce9", r"caf\xe9")], ids=["NUL", "not UTF-8"]
)
@pytest.mark.parametrize("name", DATASETS)
def test_a_data_dir_that_cannot_be_is_named(name, data_dir, shown):
  with pytest.raises(UserError) as error:
    DATASETS[name].check(data_dir)
  assert str(error.value).startswith(f"data_dir={shown}: expected the name of a folder in UTF-8, without a NUL")


@needs_real_data
@pytest.mark.parametrize("piped", ["features.json", "omniglot-test.tfrecord-00000-of-00001"])
def test_a_pipe_in_the_place_of_tfds_files_is_named_and_not_waited_for(tmp_path, piped):
  folder = tmp_path / "tensorflow_datasets" / "omniglot" / "3.0.0"
  folder.mkdir(parents=True)
  for path in (pathlib.Path(REAL) / "tensorflow_datasets" / "omniglot" / "3.0.0").iterdir():
    if path.name != piped:
      (folder / path.name).symlink_to(path)
  os.mkfifo(folder / piped)
  with pytest.raises(UserError, match=rf"{piped}: not a regular file; remove the folder and prepare it anew"):
    omniglot.load(tmp_path, tmp_path / "cache")


# Fetching Omniglot ----------------------------------------------------------------------------------------------------


def test_without_a_network_missing_omniglot_is_one_line_at_once(without_tensorflow, tmp_path):
  environment = without_tensorflow | WITHOUT_NETWORK
  result = shell("--datasource=omniglot", f"--data_dir={tmp_path / 'new'}", **environment)
  assert_one_line(
    result, 2, f"--data_dir={tmp_path}/new: no such folder", f"looked for {tmp_path}/new/tensorflow_datasets/omniglot",
    "github.com, to download it from, does not answer", "put one of the two there", 'python -c "import tensorflow_data',
  )  # fmt: skip
  assert list(tmp_path.iterdir()) == []


class Handler(http.server.BaseHTTPRequestHandler):
  def do_HEAD(self):  # the name is http.server's
    if self.path == "/never":
      time.sleep(10)
    self.send_response(200 if self.path == "/there" else 404)
    self.end_headers()

  def log_message(self, *arguments):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("no_proxy", "*")
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_what_answers_in_time_is_reachable(server):
  assert locate.reachable(f"{server}/there")
  assert not locate.reachable(f"{server}/not")
  began = time.perf_counter()
  assert not locate.reachable(f"{server}/never", seconds=0.3)
  assert not locate.reachable("http://127.0.0.1:9/")
  assert time.perf_counter() - began < 5.0


def test_a_name_that_takes_long_to_look_up_does_not_hold_up(monkeypatch):
  monkeypatch.setattr("urllib.request.urlopen", lambda *arguments, **options: time.sleep(10))
  began = time.perf_counter()
  assert not locate.reachable("https://example.invalid", seconds=0.2)
  assert time.perf_counter() - began < 5.0


class Builder:
  """Stands in for TFDS' own: what it does with the network, `act` does here."""

  def __init__(self, data_dir, act):
    self.version = pathlib.Path(data_dir) / "omniglot" / "3.0.0"
    self._act = act

  def download_and_prepare(self):
    print("\033[1mDownloading and preparing dataset, in bold\033[0m")
    self._act(self.version)


@pytest.fixture
def tfds_that(monkeypatch):
  """Sets what preparing Omniglot does, with a network that answers."""
  import tensorflow_datasets as tfds

  def use(act):
    monkeypatch.setattr(locate, "reachable", lambda url: True)
    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder(data_dir, act))

  return use


def write_info(folder):
  folder.mkdir(parents=True)
  (folder / "dataset_info.json").write_text(json.dumps({}))


def test_omniglot_is_fetched_where_it_is_missing_and_only_there(tmp_path, tfds_that, capfd):
  calls = []

  def fetch(version):
    calls.append(version)
    write_info(version)

  tfds_that(fetch)
  for _ in range(2):
    omniglot.prepare(tmp_path / "new")
  assert calls == [tmp_path / "new" / "tensorflow_datasets" / "omniglot" / "3.0.0"]
  assert locate.omniglot(tmp_path / "new") == ("tfds", calls[0])
  out, err = capfd.readouterr()
  assert out == ""
  assert err == f"Downloading Omniglot (18 MB) to {tmp_path}/new/tensorflow_datasets; this takes some minutes, once\n"


@needs_real_data
def test_a_run_begins_with_fetching_omniglot(tmp_path, tfds_that, call):
  cache = locate.cache_folder(REAL)
  cache.mkdir(parents=True, exist_ok=True)

  def fetch(version):
    version.parent.mkdir()
    version.symlink_to(next((pathlib.Path(REAL) / "tensorflow_datasets" / "omniglot").glob("*.*.*")))
    (tmp_path / "data" / "maml_tf_cache").symlink_to(cache)  # decoding takes long

  tfds_that(fetch)
  status, err = call("--datasource=omniglot", f"--data_dir={tmp_path / 'data'}", "--num_classes=2000")
  assert status == 1
  fetching, refused = err.splitlines()
  assert fetching.startswith("Downloading Omniglot")
  assert "--num_classes=2000: the data set has only 1100 classes" in refused


def test_a_download_that_fails_or_is_killed_is_not_taken_for_data(tmp_path, tfds_that):
  def fail(version):
    write_info(version.with_name("incomplete.ABC123_3.0.0"))  # TFDS' own name for it
    raise ConnectionError("the line is dead")

  tfds_that(fail)
  with pytest.raises(UserError, match=r"data_dir=.*: downloading Omniglot to .*ConnectionError: the line is dead"):
    omniglot.prepare(tmp_path)
  assert locate.omniglot(tmp_path) is None
  with pytest.raises(UserError, match="no Omniglot here"):
    omniglot.load(tmp_path, tmp_path / "cache")


def test_another_process_may_have_fetched_it_first(tmp_path, tfds_that):
  def overtaken(version):
    write_info(version)
    raise FileExistsError("the folder is there")

  tfds_that(overtaken)
  omniglot.prepare(tmp_path)
  assert locate.omniglot(tmp_path)[0] == "tfds"


def test_half_of_a_data_set_is_named_and_not_fetched(tmp_path, monkeypatch):
  monkeypatch.setattr(locate, "reachable", lambda url: pytest.fail("asked the network"))
  (tmp_path / "omniglot" / "images_background").mkdir(parents=True)
  with pytest.raises(UserError, match="omniglot: images_background/ is there, images_evaluation/ is missing; put it"):
    omniglot.prepare(tmp_path)
  (tmp_path / "miniimagenet" / "train").mkdir(parents=True)
  with pytest.raises(UserError, match="miniimagenet: train/ is there, val/ is missing; put it beside the other"):
    DATASETS["miniimagenet"].check(tmp_path)


def test_nothing_is_fetched_into_a_data_sets_own_folder_or_a_tilde(tmp_path, monkeypatch):
  monkeypatch.setattr(locate, "reachable", lambda url: pytest.fail("asked the network"))
  (tmp_path / "images_background").mkdir()
  with pytest.raises(UserError, match="name the folder that holds it") as error:
    omniglot.prepare(tmp_path)
  assert "does not answer" not in str(error.value)
  with pytest.raises(UserError, match="the shell left the ~ as it is"):
    omniglot.prepare("~/data")
