"""The mathematics of sampling: schedules, samplers, windows. No network in it."""
