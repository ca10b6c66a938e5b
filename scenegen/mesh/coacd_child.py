"""Run as a script in a process of its own, because CoACD may hang or crash: a mesh in an npz file -> its pieces in another."""

from __future__ import annotations

import sys

import coacd
import numpy as np


def main(source: str, target: str, threshold: str, max_pieces: str, max_vertices: str, seed: str) -> None:
    with np.load(source) as archive:
        mesh = coacd.Mesh(archive["vertices"], archive["faces"])
    coacd.set_log_level("error")
    pieces = coacd.run_coacd(
        mesh,
        threshold=float(threshold),
        max_convex_hull=int(max_pieces),
        preprocess_mode="auto",
        preprocess_resolution=20,
        resolution=500,
        mcts_iterations=40,
        mcts_nodes=8,
        mcts_max_depth=2,
        decimate=True,
        max_ch_vertex=int(max_vertices),
        seed=int(seed),
    )
    counts = np.array([len(vertices) for vertices, _ in pieces])
    np.savez(target, vertices=np.concatenate([vertices for vertices, _ in pieces]), counts=counts)


if __name__ == "__main__":
    main(*sys.argv[1:])
