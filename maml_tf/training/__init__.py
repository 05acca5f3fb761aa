"""Training of anything that follows the `Learner` protocol."""
