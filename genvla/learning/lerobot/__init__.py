"""Episodes in lerobot's dataset format, written and read."""
