"""A policy behind a websocket, for robots whose computer has no GPU."""
