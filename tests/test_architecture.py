"""A module imports only from the layers above its own, and no package has a cycle."""

import ast
import re
from functools import cache
from pathlib import Path

import syftlite

ROOT = Path(syftlite.__file__).parent

LAYERS = [
    {"errors", "_torch", "_malloc", "_threads"},
    {"_surroundings", "_recurrent"},
    {"randomness"},
    {"dp"},
    {"ops"},
    {"policy"},
    {"tensors"},
    {"wire"},
    {"mpc", "secagg"},
    {"engine"},
    {"storage"},
    {"transports"},
    {"remote"},
    {"plans"},
    {"fetching", "questions"},
    {"federated"},
    {"serving"},
    {"hooks", "testing"},
    {"cli", "sandbox", "tutorial"},
    {"__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("syftlite", *parts)).removesuffix(".__init__")] = path
    return found


@cache
def imports(path: Path) -> set[str]:
    """Modules of the package that ``path`` imports anywhere, but for `if TYPE_CHECKING:` blocks."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] == "syftlite" and name in modules() and name != "syftlite"}


def layer(module: str) -> int:
    parts = module.split(".")
    return LEVEL["__init__" if len(parts) == 1 else parts[1]]


def test_imports_go_one_way():
    wrong = [
        f"{module} imports {used}"
        for module, path in modules().items()
        for used in imports(path)
        if layer(used) > layer(module) or (layer(used) == layer(module) and used.split(".")[1] != module.split(".")[1])
    ]
    assert not wrong


def test_every_package_has_a_layer():
    assert {module.split(".")[1] for module in modules() if "." in module} <= set(LEVEL)


def test_no_package_has_a_cycle():
    graph = {module: imports(path) - {module} for module, path in modules().items()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for used in graph[module]:
                visit(used, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_engine_and_the_wire_touch_no_sockets_and_no_disk():
    for module, path in modules().items():
        if module.startswith(("syftlite.wire", "syftlite.engine", "syftlite.policy", "syftlite.ops", "syftlite.mpc", "syftlite.dp")):
            used = {n.split(".")[0] for n in _all_imports(path)}
            assert not used & {"socket", "asyncio", "websockets", "pathlib", "os", "sqlite3", "pickle", "subprocess"}, module


def test_nothing_unpickles_or_evaluates():
    banned = {"eval", "exec", "compile", "__import__"}
    for module, path in modules().items():
        tree = parsed(path)
        assert "pickle" not in _all_imports(path), module
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                if isinstance(node.func, ast.Name):
                    assert node.func.id not in banned, f"{module}:{node.lineno}"
                elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                    assert (node.func.value.id, node.func.attr) != ("torch", "load"), f"{module}:{node.lineno}"


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def _all_imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_what_must_be_secret_comes_from_the_one_source():
    """torch's and numpy's generators are predictable: 32 bits of seed. Shares, masks and keys have another origin."""
    banned = re.compile(r"torch\.(rand|normal|bernoulli|multinomial|manual_seed)|\.(random_|normal_|bernoulli_|uniform_)\(|(numpy|np)\.random|^(import|from) random\b", re.M)
    secret = [path for name, path in modules().items() if name.split(".")[1:2] in (["mpc"], ["secagg"], ["randomness"], ["dp"])]
    secret += [ROOT / f for f in ("engine/groups.py", "engine/holder.py", "engine/provider.py", "engine/rounds.py", "engine/sharing.py", "transports/links.py", "transports/handshake.py", "remote/group.py", "remote/sharing.py", "remote/shared_ops.py")]
    assert len(secret) > 20
    assert not [(path.name, found.group()) for path in secret if (found := banned.search(path.read_text()))]
    assert banned.search("mask = torch.randint(0, 9, (3,))") and banned.search("import random") and not banned.search("random_like(x.shape)")
