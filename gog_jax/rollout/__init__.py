"""Rollouts: a policy and the tool executor make a trajectory together."""
