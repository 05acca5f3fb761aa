"""What Rainbow MNIST is made of: sizes, and colours as a text. Imports neither TensorFlow nor NumPy."""

import re

from maml_tf.errors import UserError

CLASSES = 10
PER_CLASS, HELD_OUT = 90, 10  # of each digit in a task: 900 images, and 100 that it is judged by
BATCH_PER_CLASS = 2  # of each digit in a data batch: 20 images, 45 batches
BATCH, NUM_BATCHES = CLASSES * BATCH_PER_CLASS, PER_CLASS // BATCH_PER_CLASS
HELD_OUT_IMAGES = CLASSES * HELD_OUT
MOST_COLORS = 7  # MNIST has 6,313 fives, and eight tasks of a colour take 800


def parse_colors(text):
  """RGB values, a list of (red, green, blue), of a text like "ff0000,ffa500".

  Raises:
    UserError: it is none, or has more colours than MNIST has digits for.
  """
  found = text.lower().split(",")
  right = all(re.fullmatch("[0-9a-f]{6}", color) for color in found) and len(set(found)) == len(found)
  if not right or len(found) > MOST_COLORS:
    raise UserError(f"colors={text}: expected 1 to {MOST_COLORS} different colours as rrggbb with commas between them")
  return [tuple(bytes.fromhex(color)) for color in found]
