"""A package as somebody else would write it: a kind of data with its network and a setting, and a task with
its metric. steepest finds both by entry points; no file of steepest's knows of them."""
