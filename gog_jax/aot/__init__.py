"""A run's programs compiled, and counted, for devices that are not there."""
