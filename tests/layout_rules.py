"""The rules of the house, as functions of a source tree: each returns one line per violation, naming file and mend.

They take the tree's root, so that test_layout.py can run them on this project and on small bad trees.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "PACKAGES",
    "all_is_true",
    "core_admission",
    "docstrings",
    "file_sizes",
    "fsync_in_one_file",
    "function_sizes",
    "import_arrows",
    "mirrored_tests",
    "no_peers",
]

PACKAGES = ("zeo_core", "zeo_client", "zeo_server")
FOLDERS = (*PACKAGES, "tests", "examples", "benchmarks")
MAX_FILE_LINES = 500
MAX_BODY_LINES = 50

# whom a package must not import: the arrows are zeo_client -> zeo_core <- zeo_server
FORBIDDEN_ARROWS = {
    "zeo_core": ("zeo_client", "zeo_server"),
    "zeo_client": ("zeo_server",),
    "zeo_server": ("zeo_client",),
}
PEERS = ("ZODB", "ZEO")

CORE_VOCABULARY = ("zeo_core", "msgpack", "persistent", "transaction", "zodbpickle")
CORE_BANNED_STDLIB = frozenset(
    (
        "_thread",
        "asyncio",
        "codecs",
        "concurrent",
        "dbm",
        "fcntl",
        "fileinput",
        "ftplib",
        "http",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "sched",
        "select",
        "selectors",
        "shelve",
        "shutil",
        "signal",
        "smtplib",
        "socket",
        "socketserver",
        "sqlite3",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "urllib",
    )
)
# what reads a clock or waits for one; gmtime and the like only without an argument, when they mean "now"
CLOCKS = frozenset(
    (
        "time.clock_gettime",
        "time.clock_gettime_ns",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "time.process_time",
        "time.process_time_ns",
        "time.sleep",
        "time.thread_time",
        "time.thread_time_ns",
        "time.time",
        "time.time_ns",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "datetime.date.today",
    )
)
CLOCKS_WITHOUT_ARGUMENT = {"time.gmtime": 1, "time.localtime": 1, "time.ctime": 1, "time.strftime": 2}
OPENERS = frozenset(("open", "io.open", "io.FileIO", "io.open_code", "builtins.open"))

MACHINERY = ("logging.getLogger", "getLogger", "TypeVar", "ParamSpec")

DURABLE = {"zeo_server": "zeo_server/storages/durable.py", "zeo_client": "zeo_client/durable.py"}
SYNCS = frozenset(("os.fsync", "os.fdatasync"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(root: Path, *folders: str) -> Iterator[tuple[str, str, ast.Module]]:
    """Walk the Python files of `folders`: (path relative to the root, text, syntax tree)."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            text = path.read_text("utf-8")
            yield path.relative_to(root).as_posix(), text, ast.parse(text, str(path))


def imported(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Walk the imports of a module, at its top or deep in a function: (line, dotted name of what is imported)."""
    package = Path(path).with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called, name = dotted(node.func), node.args[0].value
            if called in ("__import__", "import_module", "importlib.import_module") and isinstance(name, str):
                yield node.lineno, name


def dotted(node: ast.expr) -> str:
    """Return `a.b.c` for an expression of that form, else an empty text."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join((node.id, *reversed(parts)))


def meanings(tree: ast.Module) -> dict[str, str]:
    """Return what the names bound by a module's imports stand for: {"now": "time.time"}."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def uses(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Walk every name and attribute in a module under its full dotted name, however it was imported."""
    known = meanings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, _, rest = dotted(node).partition(".")
            full = known.get(first, first)
            yield node, f"{full}.{rest}" if rest else full


def import_arrows(root: Path) -> list[str]:
    """zeo_client -> zeo_core <- zeo_server, and no other arrow, lazy imports included."""
    return [
        f"{path}:{line}: {package} imports {name}; move what both need to zeo_core, or find it by its entry point"
        for package, forbidden in FORBIDDEN_ARROWS.items()
        for path, _text, tree in sources(root, package)
        for line, name in imported(path, tree)
        if name.split(".")[0] in forbidden
    ]


def no_peers(root: Path) -> list[str]:
    """ZODB and ZEO are test dependencies, never run-time ones."""
    return [
        f"{path}:{line}: imports {name}; ZODB and ZEO may be imported in tests/ and benchmarks/ only"
        for path, _text, tree in sources(root, *PACKAGES)
        for line, name in imported(path, tree)
        if name.split(".")[0] in PEERS
    ]


def core_admission(root: Path) -> list[str]:
    """zeo_core: a small vocabulary of imports, no I/O, no threads, no clock."""
    return [fault for path, _text, tree in sources(root, "zeo_core") for fault in _core_faults(path, tree)]


def _core_faults(path: str, tree: ast.Module) -> Iterator[str]:
    for line, name in imported(path, tree):
        if not _admitted(name.split(".")[0]):
            yield f"{path}:{line}: imports {name}; what needs it belongs to zeo_client or zeo_server"
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node, name in uses(tree):
        call = calls.get(id(node))
        if name in CLOCKS or (call and _reads_clock(name, call)):
            yield f"{path}:{node.lineno}: {name} reads a clock; take the time as an argument"
        elif name in OPENERS and (call or name != "open"):
            yield f"{path}:{node.lineno}: {name} opens a file; take and return bytes"


def _admitted(top: str) -> bool:
    return top in CORE_VOCABULARY or (top in sys.stdlib_module_names and top not in CORE_BANNED_STDLIB)


def _reads_clock(name: str, call: ast.Call) -> bool:
    return len(call.args) + len(call.keywords) < CLOCKS_WITHOUT_ARGUMENT.get(name, 0)


def file_sizes(root: Path) -> list[str]:
    """No file over 500 lines."""
    return [
        f"{path}: {count} lines; split it by noun, {MAX_FILE_LINES} is the limit"
        for path, text, _tree in sources(root, *FOLDERS)
        if (count := text.count("\n")) > MAX_FILE_LINES
    ]


def function_sizes(root: Path) -> list[str]:
    """No function body over 50 lines, its docstring not counted."""
    return [
        f"{path}:{node.lineno}: {node.name} has {count} lines; split it by step, {MAX_BODY_LINES} is the limit"
        for path, _text, tree in sources(root, *FOLDERS)
        for node in ast.walk(tree)
        if isinstance(node, Function) and (count := _body_lines(node)) > MAX_BODY_LINES
    ]


def _statements(node: Function | ast.ClassDef | ast.Module) -> list[ast.stmt]:
    """Return a body without its docstring."""
    return node.body[1:] if ast.get_docstring(node) is not None else node.body


def _body_lines(node: Function) -> int:
    body = _statements(node)
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def docstrings(root: Path) -> list[str]:
    """Every module says what it is for."""
    return [
        f"{path}: no docstring; say in a line what the module is for"
        for path, _text, tree in sources(root, *PACKAGES, "examples", "benchmarks")
        if not ast.get_docstring(tree)
    ]


def mirrored_tests(root: Path) -> list[str]:
    """zeo_core/x.py has tests/core/test_x.py; __init__.py and files without code of their own are exempt."""
    faults = []
    for path, _text, tree in sources(root, *PACKAGES):
        source = Path(path)
        if source.name == "__init__.py" or not _has_code(tree):
            continue
        package = source.parts[0].removeprefix("zeo_")
        test = Path("tests", package, *source.parts[1:-1], f"test_{source.name}")
        if not (root / test).is_file():
            faults.append(f"{path}: has no test file; write {test.as_posix()}")
    return faults


def _has_code(tree: ast.Module) -> bool:
    """Tell whether there is anything to run: a function that does something, or a table built at import.

    Signatures with a docstring only (Protocols), aliases and `__all__` are not code.
    """
    for node in ast.walk(tree):
        if isinstance(node, Function) and any(not _is_stub(statement) for statement in _statements(node)):
            return True
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict | ast.Call):
            return True
    return False


def _is_stub(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def all_is_true(root: Path) -> list[str]:
    """`__all__` stands in every module with public names, is sorted, and says neither too much nor too little."""
    return [fault for path, _text, tree in sources(root, *PACKAGES) for fault in _all_faults(path, tree)]


def _all_faults(path: str, tree: ast.Module) -> Iterator[str]:
    listed = _listed(tree)
    defined = set(_defined(tree))
    public = {name for name in defined if not name.startswith("_")}
    if listed is None:
        if public:
            yield f"{path}: no __all__; list {', '.join(sorted(public))}, or give private names an underscore"
        return
    if listed != sorted(listed, key=_sort_key):
        yield f"{path}: __all__ is not sorted; `ruff check --fix` sorts it"
    if doubles := sorted({name for name in listed if listed.count(name) > 1}):
        yield f"{path}: __all__ names {', '.join(doubles)} twice"
    if missing := sorted(public - set(listed)):
        yield f"{path}: __all__ lacks {', '.join(missing)}; add them or give them an underscore"
    bound = defined | meanings(tree).keys()
    if Path(path).name != "__init__.py":
        bound = defined  # only a package's front door may pass on what others define
    if unbound := sorted(set(listed) - bound):
        yield f"{path}: __all__ names {', '.join(unbound)}, not defined here; take them out"


def _listed(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.List | ast.Tuple):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                return [str(ast.literal_eval(item)) for item in node.value.elts]
    return None


def _defined(tree: ast.Module) -> Iterator[str]:
    """Walk the names that a module's own statements bind, those under a top-level if, try or with included."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and not _is_machinery(node.value):
            yield from (name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        else:
            waiting += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.ExceptHandler)
            ]


def _is_machinery(value: ast.expr) -> bool:
    """Tell whether a value is a logger or a type variable: named plainly by custom, yet nobody imports it."""
    return isinstance(value, ast.Call) and dotted(value.func) in MACHINERY


def _sort_key(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Order names as isort does, and so ruff: CONSTANTS, Classes, the rest; digits as numbers."""
    rank = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return rank, [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def fsync_in_one_file(root: Path) -> list[str]:
    """Only one module of a package brings bytes to disk, so that its rules are kept in one place."""
    return [
        f"{path}:{node.lineno}: uses {name}; call a function of {DURABLE[package]} instead"
        for package in DURABLE
        for path, _text, tree in sources(root, package)
        if path != DURABLE[package]
        for node, name in uses(tree)
        if name in SYNCS
    ]
