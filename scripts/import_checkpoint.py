"""Turns a checkpoint of the published code (cbfinn/maml, TensorFlow 1) into a SavedModel of this package.

python scripts/import_checkpoint.py CHECKPOINT OUTPUT

CHECKPOINT is the prefix of its files, as in logs/.../model59000; OUTPUT a folder, in which an older SavedModel is
replaced. The convolutional network with batch norm is expected.
The settings of the inner loop, which a checkpoint does not hold, are those of the data set's preset.
"""

import hashlib
import pathlib
import shutil
import sys

from absl import flags
from common import import_tensorflow, main_of

from maml_tf.errors import UserError
from maml_tf.experiments.config import resolve

FLAGS = flags.FLAGS
flags.DEFINE_enum("datasource", "miniimagenet", ("omniglot", "miniimagenet"), "data set that it was trained on")

# By the hash of the weights' file.
KNOWN = {
  "f7e14e6f544371a562441d378f4bc5765431008400cc07a16ad5ed488ea9dea0": dict(
    source="https://github.com/cbfinn/maml, logs/miniimagenet1shot/"
    "cls_5.mbs_4.ubs_1.numstep5.updatelr0.01hidden32maxpoolbatchnorm/model59000",
    licence="MIT, Copyright (c) 2017 Chelsea Finn",
  ),
}


def convert(arguments):
  if len(arguments) != 2:
    raise UserError(f"expected the checkpoint's prefix and the folder to write, got {' '.join(arguments) or 'nothing'}")
  checkpoint, output = map(pathlib.Path, arguments)
  import_tensorflow()
  from maml_tf import MAML, tf1_import
  from maml_tf.experiments.domains.images import experiment as images

  tf1_import.check_output(output)
  found = tf1_import.read_tf1_checkpoint(checkpoint)
  *_, filters = found["conv_0/kernel"].shape
  (classes,) = found["dense/bias"].shape
  config = resolve(FLAGS.datasource, num_classes=classes, num_filters=filters)
  model = images.make_model(config)
  maml = MAML(model, "crossentropy", config.update_lr, config.num_updates, loss_reduction=config.loss_reduction)
  try:
    weights = tf1_import.import_tf1_checkpoint(
      checkpoint, maml, output, {"config": config.portable(), **origin(checkpoint)}
    )
  except UserError as error:
    other = "miniimagenet" if config.datasource == "omniglot" else "omniglot"
    raise UserError(f"{error}; try --datasource={other}") from error
  licence = checkpoint.with_name("LICENSE")
  if licence.is_file():  # its terms are that it goes where the weights go
    shutil.copyfile(licence, output / licence.name)
  print(f"wrote {output}: {sum(weight.shape.num_elements() for weight in weights.values()):,} weights")


def origin(checkpoint):
  """Where the weights come from, to travel with them."""
  digest = hashlib.sha256(checkpoint.with_name(f"{checkpoint.name}.data-00000-of-00001").read_bytes()).hexdigest()
  known = KNOWN.get(digest, {"source": f"checkpoint {checkpoint.name} of the published code"})
  return {**known, "sha256": digest}


if __name__ == "__main__":
  sys.exit(main_of(convert, __doc__))
