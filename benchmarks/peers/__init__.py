"""The same rules in other libraries, each with its arguments mapped from ours by hand."""
