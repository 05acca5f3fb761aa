"""Meta-reinforcement learning: tasks, rollouts, policy gradients inside and TRPO outside (Finn et al. 2017, 5.3)."""
