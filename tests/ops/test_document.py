"""docs/operators.md is what its script writes, and says nothing untrue of what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from syftlite.ops.operator import Kind
from syftlite.ops.table import BY_FUNC


@pytest.fixture(scope="module")
def script() -> Any:
    path = Path(__file__).parents[2] / "docs" / "generate_operators.py"
    spec = importlib.util.spec_from_file_location("generate_operators", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(script: Any) -> None:
    assert script.PAGE.read_text(encoding="utf-8") == script.render(), "run: python docs/generate_operators.py"


def test_every_kind_and_operator_is_on_the_page(script: Any) -> None:
    assert set(script.KINDS) == set(Kind)
    page = script.render()
    for operator in BY_FUNC.values():
        packet, overload = operator.name.removeprefix("aten.").rsplit(".", 1)
        assert f"| `{packet}` |" in page and f"{overload} {operator.number}" in page


def test_what_is_said_to_be_refused_is_not_in_the_table(script: Any) -> None:
    packets = {operator.name.split(".")[1] for operator in BY_FUNC.values()}
    for names, _ in script.REFUSED:
        for name in names.split(", "):
            if not name.startswith("every"):
                assert name not in packets and (name in dir(torch.ops.aten) or hasattr(torch.ops.aten, name)), name
