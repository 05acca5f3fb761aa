"""A user's own pictures without labels, in folders however deep. Imports neither TensorFlow nor NumPy at the top."""

import hashlib
import pathlib

from maml_tf.datasets import locate
from maml_tf.errors import UserError

CHANNELS = 3
LEAST = 2  # images of a task


class UnsortedPictures:
  """All pictures below `<data_dir>/train`; where there is no such folder, below `data_dir` itself.

  Args:
    data_dir: the folder.

  Attributes:
    labelled: whether `<data_dir>/val/<class>/` and `test/<class>/` are there too, for validation and test.
  """

  def __init__(self, data_dir):
    self._data_dir = pathlib.Path(data_dir)
    inside = self._data_dir / "train"
    self._root = inside if inside.is_dir() else self._data_dir
    self.labelled = inside.is_dir() and all((self._data_dir / part).is_dir() for part in ("val", "test"))

  def check(self):
    """Refuses a folder without pictures.

    Raises:
      UserError: one line that begins with `data_dir=` or a path.
    """
    locate.check_folder(self._data_dir, self._check_layout)

  def load(self, size):
    """uint8 [M, height, width, 3], sorted by content, so that names and folders tell nothing."""
    from maml_tf.datasets import image_bank

    source = image_bank.files_source(f"{self._root.name}-unsorted", self._root, [("", path) for path in self._files()])
    return image_bank.load(source, locate.cache_folder(self._data_dir), size, CHANNELS).images

  def fingerprint(self):
    """A short hash of the pictures' sizes and names, from listings alone."""
    lines = [f"{path.relative_to(self._root).as_posix()} {path.stat().st_size}" for path in self._files()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

  def _files(self):
    """Paths of all pictures, sorted; what lies in hidden folders and in our own cache does not count."""
    found, folders = [], [self._root]
    while folders:
      folder = folders.pop()
      found += locate.pictures(folder)
      folders += [inside for inside in locate.folders(folder) if inside != self._data_dir / "maml_tf_cache"]
    return sorted(found)

  def _check_layout(self, path):
    if not path.exists():
      raise UserError(f"data_dir={path}: no such folder; name the folder of the pictures")
    if len(self._files()) < LEAST:
      suffixes = ", ".join(locate.IMAGE_SUFFIXES)
      raise UserError(f"data_dir={path}: fewer than two pictures below {self._root} (looked for {suffixes})")
