"""What a command line shows to its user as one line and without a traceback."""


class UserError(Exception):
  """Something the user can mend: it names the flag, file or value, what was expected and what to do."""


class DivergedError(UserError, ValueError):
  """Training, or fine-tuning with every step size, ends in infinity or NaN."""
