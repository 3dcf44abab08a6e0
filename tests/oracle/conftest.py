"""timm's optimizers, where tests compare rules with them."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def timms(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Modules of timm.optim alone: timm wants a torchvision, which may be made for another torch."""
    found = find_spec("timm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("timm is not installed")
    (folder,) = found.submodule_search_locations
    for package, path in (("timm", folder), ("timm.optim", f"{folder}/optim")):
        bare = ModuleType(package)
        bare.__path__ = [path]
        monkeypatch.setitem(sys.modules, package, bare)
    return lambda name: import_module(f"timm.optim.{name}")
