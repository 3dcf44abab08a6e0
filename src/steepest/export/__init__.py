"""A run taken elsewhere: as a program of plain PyTorch."""
