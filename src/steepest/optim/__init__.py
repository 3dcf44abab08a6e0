"""The optimizer library: rules as mathematics, and the engines that run them in each framework."""

PUBLIC = {
    "batch": "optim.batch",
    "rules": "optim.rules",
    "schedule": "optim.schedule",
    "wrap": "optim.wrappers",
}
"""Modules with a public path of their own below `steepest`, and where they lie."""


def public_path(module: str) -> str:
    """The path that people write for a module: "steepest.schedule" for "steepest.optim.schedule"."""
    for public, home in PUBLIC.items():
        if f"{module}.".startswith(f"steepest.{home}."):
            return f"steepest.{public}{module.removeprefix(f'steepest.{home}')}"
    return module
