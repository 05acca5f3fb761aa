"""`tf.function` without AutoGraph, which rewrites Python's `if` and `for` on tensors.

The package has TensorFlow's own control flow (`tf.cond`, `tf.while_loop`, `tf.map_fn`), so there is nothing to rewrite;
to find that out takes seconds at the start, and then up to as long as tracing itself. Keras 3 traces its training and
its exports in the same way. A function of the user's (a task's `sample`, a loss, a layer's `call`) that branches on a
tensor is decorated with `@tf.function`, and so rewritten by itself.
"""

import functools

import tensorflow as tf

function = functools.partial(tf.function, autograph=False)

# For what users call in a `tf.function` of their own: nothing in it is rewritten, whatever that function asks for.
as_it_stands = tf.autograph.experimental.do_not_convert
