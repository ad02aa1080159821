"""Training VideoCrafter2: `python -m vc2.training`."""
