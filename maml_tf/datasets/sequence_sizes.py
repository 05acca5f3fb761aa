"""Sizes of the tasks in a sequence of classes. Imports neither TensorFlow nor NumPy."""

WAYS, TASKS = 5, 20
HELD_OUT_PER_CLASS, PER_CLASS_IN_BATCH = 20, 10
BATCH = WAYS * PER_CLASS_IN_BATCH
EXAMPLES = 2000  # of a task; the paper's last panel
