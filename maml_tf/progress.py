"""The progress bar of everything that takes long."""

import shutil

from tqdm import tqdm


def bar(iterable=None, **settings):
  """tqdm's bar, quiet where the output is not a terminal.

  With sizes of its own: where the terminal says that it has 0 columns and rows, tqdm would show nothing.
  """
  columns, lines = shutil.get_terminal_size()
  return tqdm(iterable, disable=None, ncols=columns, nrows=lines, **settings)
