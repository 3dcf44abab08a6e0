"""The optimizer library: rules as mathematics, and the engines that run them in each framework."""
