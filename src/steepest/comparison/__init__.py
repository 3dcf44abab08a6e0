"""Strategies under equal conditions: the question, the runs that answer it, and what these allow to say."""
