"""Checkpoints of other projects: open-pi-zero, openpi and lerobot (one format here, "lerobot"), and PaliGemma."""
