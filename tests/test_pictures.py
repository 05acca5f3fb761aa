"""From folders of pictures to labels: against the SavedModel used by hand, and what is said of bad input."""

import csv
import os
import pathlib
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

import maml_tf
from maml_tf import MAML, export, models, pictures, pixels, tasks
from maml_tf.contact_sheet import MOST_QUERIES, contact_sheet
from maml_tf.errors import UserError
from maml_tf.experiments import predict_command

ROOT = pathlib.Path(__file__).parents[1]
OMNIGLOT = ROOT / "pretrained" / "omniglot_5way"
FONTS = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")


def draw(letter, path, font="DejaVuSans", size=105, offset=0):
  """Ink on paper, as a scanned character."""
  image = Image.new("L", (size, size), "white")
  made = ImageFont.truetype(str(FONTS / f"{font}.ttf"), int(0.7 * size))
  ImageDraw.Draw(image).text((size / 2 + offset, size / 2 - offset), letter, 0, made, anchor="mm")
  path.parent.mkdir(parents=True, exist_ok=True)
  image.save(path)


def make_folders(root, classes="AFOSX"):
  """support/<letter>/0.png and query/<letter>_<n>.png: another size, another place, colour."""
  for letter in classes:
    draw(letter, root / "support" / letter / "0.png")
    draw(letter, root / "query" / f"{letter}_1.png", size=200, offset=8)
    draw(letter, root / "query" / f"{letter}_2.png", font="DejaVuSansMono", size=90)
  return root / "support", root / "query"


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
  return make_folders(tmp_path_factory.mktemp("letters"))


@pytest.fixture(scope="module")
def own_model(tmp_path_factory):
  """A SavedModel of one's own, of colour pictures of 12 x 12 in [-1, 1], three classes."""
  rng = np.random.default_rng(0)
  y = np.repeat(np.arange(6), 6)
  x = rng.uniform(-1, 1, size=(6, 12, 12, 3))[y] + 0.05 * rng.normal(size=(36, 12, 12, 3))
  maml = MAML(models.ConvNet(3, filters=4, input_shape=(12, 12, 3)), "crossentropy", 0.4, num_updates=2)
  maml.fit(tasks.from_arrays(x, y, 3, 1, 2), 2, meta_batch_size=2, num_validation_tasks=1)
  path = tmp_path_factory.mktemp("own") / "m"
  maml.save(path, pictures={"range": (-1, 1)})
  return path


def test_letters_are_told_apart_by_a_network_that_saw_omniglot(letters):
  found = maml_tf.predict_folder(OMNIGLOT, *letters)
  assert found.classes == tuple("AFOSX")
  assert found.files == tuple(f"{letter}_{n}.png" for letter in "AFOSX" for n in (1, 2))
  right = [file[0] == label for file, label in zip(found.files, found.labels, strict=True)]
  assert sum(right) >= 9


def test_the_numbers_are_those_of_the_saved_model_used_by_hand(letters):
  support, query = letters

  def inputs(paths):
    resized = [Image.open(path).convert("L").resize((28, 28), Image.Resampling.LANCZOS) for path in paths]
    return np.stack([1 - np.float32(image)[..., None] / 255 for image in resized])

  module = tf.saved_model.load(str(OMNIGLOT))
  x, queries = inputs(sorted(support.glob("*/*"))), inputs(sorted(query.iterdir()))
  for steps in (None, 3):
    logits = module.adapt_and_predict(x, np.arange(5), queries, 1 if steps is None else steps).numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = pictures.predict_folder(OMNIGLOT, support, query, num_updates=steps)
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4, atol=1e-6)


def test_what_is_written(letters, tmp_path):
  found = pictures.predict_folder(OMNIGLOT, *letters, output=tmp_path / "new" / "out")
  with open(tmp_path / "new" / "out" / "labels.csv", newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert list(rows[0]) == ["file", "label", "probability", "p(A)", "p(F)", "p(O)", "p(S)", "p(X)"]
  assert [(row["file"], row["label"]) for row in rows] == list(zip(found.files, found.labels, strict=True))
  for row, probabilities in zip(rows, found.probabilities, strict=True):
    numbers = [float(row[f"p({name})"]) for name in "AFOSX"]
    np.testing.assert_allclose(numbers, probabilities, atol=5e-5)
    assert float(row["probability"]) == max(numbers)
    assert sum(numbers) == pytest.approx(1, abs=3e-4)
  with Image.open(tmp_path / "new" / "out" / "contact_sheet.png") as sheet:
    assert sheet.format == "PNG"
    assert min(sheet.size) > 200
    # A light grey, in case of an empty sheet: there is the ink of letters and the colour of frames.
    assert {(0, 0, 0), (31, 119, 180)} <= {color for _, color in sheet.getcolors(2**16)}


def test_fewer_classes_and_uneven_ones_than_it_was_trained_for(letters, tmp_path):
  support = shutil.copytree(letters[0], tmp_path / "support")
  for letter in "SX":
    shutil.rmtree(support / letter)
  draw("A", support / "A" / "again.png", size=80)
  found = pictures.predict_folder(OMNIGLOT, support, letters[1])
  assert found.classes == ("A", "F", "O")
  np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_model_of_ones_own_says_how_its_pictures_are_made(own_model, tmp_path):
  rng = np.random.default_rng(1)
  for place in ("support/ant/0.png", "support/bee/0.png", "query/0.png", "query/1.jpg"):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(tmp_path / place)
  found = maml_tf.predict_folder(own_model, tmp_path / "support", tmp_path / "query", num_updates=3)
  x, query = (
    np.stack([np.float32(Image.open(path)) / 127.5 - 1 for path in sorted((tmp_path / part).glob(pattern))])
    for part, pattern in (("support", "*/*"), ("query", "*"))
  )
  module = tf.saved_model.load(str(own_model))
  logits = module.adapt_and_predict(x, np.arange(2), query, 3)[:, :2]
  np.testing.assert_allclose(found.probabilities, tf.nn.softmax(logits), rtol=1e-4, atol=1e-6)
  metadata = maml_tf.load(own_model).metadata
  assert metadata["inputs"] == {"shape": [12, 12, 3], "dtype": "float32"}
  assert metadata["labels"] == {"shape": [], "dtype": "int64"}
  assert (metadata["outputs"], metadata["default_steps"]) == ([3], 2)
  assert metadata["pictures"] == {"range": [-1.0, 1.0], "inverted": False}


def smooth(height, width, channels):
  """A picture without sharp edges, which filters treat alike but for rounding."""
  rows, columns = np.meshgrid(np.linspace(0, 3, height), np.linspace(0, 2, width), indexing="ij")
  planes = [127 + 120 * np.sin(rows + c) * np.cos(columns - c) for c in range(channels)]
  return np.stack(planes, -1).round().astype(np.uint8)


@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.parametrize("wanted", [1, 3])
@pytest.mark.parametrize("inverted", [False, True])
def test_pictures_become_inputs_as_pillow_makes_them(given, wanted, inverted):
  picture = smooth(60, 45, given)
  image = Image.fromarray(picture[..., 0] if given == 1 else picture).convert("L" if wanted == 1 else "RGB")
  expected = np.float32(image.resize((21, 28), Image.Resampling.LANCZOS)).reshape(28, 21, wanted) / 255
  expected = 1 - expected if inverted else expected
  for pictures_given in (picture, np.float32(picture) / 255):
    got = pixels.prepare(tf.constant(pictures_given[np.newaxis]), (28, 21), wanted, (0.0, 1.0), inverted)
    np.testing.assert_allclose(got[0], expected, atol=2.5 / 255)  # Pillow rounds after each of two or three passes


def test_the_saved_model_itself_takes_pictures_of_any_size(own_model):
  module = tf.saved_model.load(str(own_model))
  for channels in (1, 3):
    picture = smooth(30, 20, channels)
    x = module.prepare(picture[np.newaxis])
    assert (x.shape, x.dtype) == ((1, 12, 12, 3), tf.float32)
    np.testing.assert_allclose(module.prepare(np.float32(picture[np.newaxis]) / 255), x, atol=1e-5)
    expected = pixels.prepare(tf.constant(picture[np.newaxis]), (12, 12), 3, (-1.0, 1.0), False)
    np.testing.assert_allclose(x, expected, atol=1e-6)


def test_many_queries_are_cut_off_in_the_sheet_and_long_names_too():
  pictures_given = np.zeros([MOST_QUERIES + 1, 4, 4, 1], np.uint8)
  name = "a very long name of a class that does not fit into a tile"
  data = contact_sheet([(name, pictures_given[0])], pictures_given, [(name, "90%", "x.png")] * len(pictures_given))
  assert data.startswith(b"\x89PNG")


def without(path):
  def change(root):
    for found in root.glob(path):
      shutil.rmtree(found) if found.is_dir() else found.unlink()

  return change


def add(name, data=b"no picture"):
  def change(root):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)

  return change


BAD = {
  "one class": (without("support/[FOSX]"), "support: only one class, A, and nothing to tell it from"),
  "class without pictures": (without("support/A/*"), "support/A: no image in this class folder (looked for .png,"),
  "no classes": (without("support/*"), "support: no class folder here; expected <class>/<image>"),
  "six classes": (lambda root: draw("Z", root / "support/Z/0.png"), "support: 6 classes, but {model} tells 5 apart"),
  "no picture": (add("support/A/1.png"), "support/A/1.png: not a readable image (of no known format)"),
  "no query picture": (add("query/A_1.png"), "query/A_1.png: not a readable image (of no known format)"),
  "no queries": (without("query/*"), "query: no picture here (looked for .png,"),
  "no folder": (without("query"), "query: no such folder; name the folder of the pictures"),
  "pipe": (lambda root: os.mkfifo(root / "query/pipe.png"), "query/pipe.png: not a regular file"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_pictures_get_one_line(change, message, tmp_path, capsys):
  support, query = make_folders(tmp_path)
  change(tmp_path)
  output = tmp_path / "out"
  status = predict_command.main(
    [f"--model={OMNIGLOT}", f"--support={support}", f"--query={query}", f"--output={output}"]
  )
  assert status == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("maml-tf predict: ")
  assert message.format(model=OMNIGLOT) in line
  assert not output.exists()


def test_saved_models_of_another_kind_are_refused(letters, tmp_path, own_model):
  tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
  described = {"range": (0, 1)}
  for path, message in (
    (tmp_path, "no SavedModel here"),
    (tmp_path / "foreign", "not a SavedModel that maml_tf exported"),
    (ROOT / "pretrained" / "point", "has no adapt_and_predict"),
    (ROOT / "pretrained" / "sinusoid", "no classifier of pictures: its inputs are [1]"),
  ):
    with pytest.raises(UserError) as raised:
      pictures.predict_folder(path, *letters)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
  trained = maml_tf.load(own_model)
  del trained.metadata["pictures"]
  with pytest.raises(UserError, match="it does not say how its inputs are made of pictures; save it with"):
    pictures.described_pictures(trained)
  with pytest.raises(ValueError, match=r"range is \(1, 1\), expected \(low, high\)"):
    export.picture_metadata(**described | {"range": (1, 1)})


def test_the_command(letters, tmp_path):
  support, query = letters
  done = subprocess.run(
    [sys.executable, "-m", "maml_tf", "predict", f"--model={OMNIGLOT}", f"--support={support}", f"--query={query}"],
    capture_output=True, text=True, timeout=300, cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-2000:]
  assert sorted(path.name for path in (tmp_path / "predictions").iterdir()) == ["contact_sheet.png", "labels.csv"]
  lines = done.stdout.splitlines()
  assert [line.split()[0] for line in lines[:10]] == sorted(path.name for path in query.iterdir())
  assert lines[-2:] == ["labels         predictions/labels.csv", "contact sheet  predictions/contact_sheet.png"]


@pytest.mark.parametrize(("arguments", "status", "message"), [
  ([], 2, "the following arguments are required: --model, --support, --query; --help shows what there is"),
  (["--num_updates=-1"], 2, "argument --num_updates: expected a whole number, 0 or more, got '-1'"),
  (["--modle=x"], 2, "the following arguments are required"),
  (["--model=x", "--support=absent", "--query=y"], 1, "support=absent: no such folder"),
  (["--help"], 0, ""),
], ids=str)  # fmt: skip
def test_a_bad_command_line_is_refused_before_tensorflow_is_imported(arguments, status, message, tmp_path):
  code = (
    "import sys; sys.modules['tensorflow'] = sys.modules['numpy'] = None; "
    "from maml_tf.experiments.predict_command import main; sys.exit(main(sys.argv[1:]))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=100, cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
  )  # fmt: skip
  assert done.returncode == status, done.stderr
  assert message in done.stderr
  assert len(done.stderr.splitlines()) == (status > 0)
