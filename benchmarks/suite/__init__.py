"""Workloads, clocks, opponents and scores: how well a way to train does, over many kinds of network."""
