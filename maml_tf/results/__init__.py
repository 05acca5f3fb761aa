"""What reproduces the paper's numbers, and publishes them."""
