"""`tf.function` without AutoGraph, which rewrites Python's `if` and `for` on tensors.

The package has TensorFlow's own control flow (`tf.cond`, `tf.while_loop`, `tf.map_fn`), so there is nothing to rewrite.
To find that out, AutoGraph takes seconds when it first meets the code, and makes later tracing up to twice as long.
Keras 3 traces its training and its exports in the same way. A function of the user's (a task's `sample`, a loss) that
branches on a tensor in Python is decorated with `@tf.function`, and so rewritten by itself.
"""

import functools

import tensorflow as tf

function = functools.partial(tf.function, autograph=False)

# For what users call in a `tf.function` of their own: nothing below it is rewritten but what is decorated itself.
as_it_stands = tf.autograph.experimental.do_not_convert
