"""The house rules that a program can check: each names the places that break it, and what to do instead."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
KEYS = "services/store/keys.py"
CLOCK = "services/runtime/clock.py"
ENTROPY = "services/runtime/entropy.py"


class Source(NamedTuple):
    """One module of the product: its path from the root, and its text."""

    path: str
    text: str

    def nodes(self) -> Iterator[ast.AST]:
        """Yield every node of its syntax tree."""
        return ast.walk(ast.parse(self.text))


Rule = Callable[[Source], list[str]]


def sources() -> list[Source]:
    paths = sorted(path for top in ("schemas", "services") for path in (ROOT / top).rglob("*.py"))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


def broken(rule: Rule) -> str:
    """Return the places that break a rule, a line for each."""
    return "\n".join(place for source in sources() for place in rule(source))


# --- the rules ---

_KEY = re.compile(r":(log|live|changes|checkpoint|tallies|index|devices|operations|parked|principals)\b")
_MODULE_AND_NAME = re.compile(r"[a-z_]+:[a-z_]+")  # as in `tallies:replay`, which is no key


def key_literals(source: Source) -> list[str]:
    """Key names stand in one pure module (DESIGN section 4)."""
    if source.path == KEYS:
        return []
    docstrings = set(_docstrings(source))
    return [
        f"{source.path}:{getattr(node, 'lineno', 0)}: {node.value!r} is a key name: take it from `services.store.keys`"
        for node in source.nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        if (node.lineno, node.col_offset) not in docstrings and _is_key(_decoded(node.value))
    ]


INSTEAD = {
    "datetime.datetime.now": f"`now` of {CLOCK}, passed on from the composition root",
    "datetime.datetime.utcnow": f"`now` of {CLOCK}, passed on from the composition root",
    "datetime.datetime.today": f"`now` of {CLOCK}, passed on from the composition root",
    "datetime.date.today": f"`now` of {CLOCK}, passed on from the composition root",
    "time.time": f"`now` of {CLOCK}, passed on from the composition root",
    "time.time_ns": f"`now` of {CLOCK}, passed on from the composition root",
    "time.monotonic": f"a function of {CLOCK}, passed on from the composition root",
    "time.monotonic_ns": f"a function of {CLOCK}, passed on from the composition root",
    "time.perf_counter": f"a function of {CLOCK}, passed on from the composition root",
    "time.process_time": f"a function of {CLOCK}, passed on from the composition root",
    "time.localtime": f"`now` of {CLOCK}, passed on from the composition root",
    "time.gmtime": f"`now` of {CLOCK}, passed on from the composition root",
    "uuid.uuid1": "an id that is passed in",
    "uuid.uuid4": "an id that is passed in",
    "uuid.uuid6": "an id that is passed in",
    "uuid.uuid7": "an id that is passed in",
    "os.urandom": "bytes that are passed in",
    "secrets": "a secret that is passed in",
    "random": "a `random.Random` with a seed, passed in; only `services.simulator` makes one",
}


def clock_or_randomness(source: Source) -> list[str]:
    """Time, identifiers and randomness are arguments; there is one clock, and one source of randomness."""
    if source.path in (CLOCK, ENTROPY):
        return []
    names = _imported_names(source)
    places = []
    for node in source.nodes():
        name = _full_name(node, names)
        instead = INSTEAD.get(name) or INSTEAD.get(name.partition(".")[0])
        if name.startswith(ROOTS_ONLY) and not _may_have_the_clock(source.path):
            instead = "what is passed on from the composition root"
        seeded = name == "random.Random" and source.path.startswith("services/simulator/")
        if instead and "." in name and not seeded:
            places.append(f"{source.path}:{getattr(node, 'lineno', 0)}: {name}: use {instead}")
    return sorted(set(places))


ROOTS_ONLY = ("services.runtime.clock.", "services.runtime.entropy.")


def _may_have_the_clock(path: str) -> bool:
    """Composition roots, and what runs a server: limits on waiting are no dates. A patrol app's root is `FieldUnit`."""
    if path == "services/field/__init__.py":
        return True
    return path.startswith(("services/runtime/", "services/cli/")) or path.endswith(("/app.py", "/__main__.py"))


def unseeded_random(source: Source) -> list[str]:
    """Equal seeds give equal fleets."""
    names = _imported_names(source)
    return [
        f"{source.path}:{node.lineno}: Random() without a seed: give it one"
        for node in source.nodes()
        if isinstance(node, ast.Call) and _full_name(node.func, names) == "random.Random" and not node.args
    ]


# The one line that a user is to read when a process of the projector ends.
_LAST_WORDS = 'print(f"fieldtally: {error}", file=sys.stderr)'


def prints(source: Source) -> list[str]:
    """Only the command line prints, and the projector its last words."""
    if source.path.startswith("services/cli/"):
        return []
    return [
        f"{source.path}:{node.lineno}: print: log an event with `services.runtime.logging`"
        for node in source.nodes()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if not source.path.startswith("services/projector/") or ast.get_source_segment(source.text, node) != _LAST_WORDS
    ]


def missing_docstring(source: Source) -> list[str]:
    """A module says in its first sentence why it exists; an empty one has nothing to say."""
    if not source.text.strip() or ast.get_docstring(ast.parse(source.text)):
        return []
    return [f"{source.path}:1: no docstring: say in a sentence why the module exists"]


_PURE = {"schemas": {"schemas", "msgspec"}, "services/tally": {"schemas", "services.tally", "msgspec"}}


def impure_imports(source: Source) -> list[str]:
    """Schemas and the kernel need nothing but the standard library and msgspec (DESIGN section 11)."""
    allowed = next((names for top, names in _PURE.items() if source.path.startswith(f"{top}/")), None)
    if allowed is None:
        return []
    imported = [
        (getattr(node, "lineno", 0), module)
        for node in source.nodes()
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "." * node.level]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]
    return [
        f"{source.path}:{line}: imports {module}: move what needs it outward"
        for line, module in imported
        if module.partition(".")[0] not in sys.stdlib_module_names
        and not any(module == name or module.startswith(f"{name}.") for name in allowed)
    ]


def waiting_kernel(source: Source) -> list[str]:
    """The kernel computes; who waits and reads stands around it."""
    if not source.path.startswith(("schemas/", "services/tally/")):
        return []
    waits = ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith
    return [
        f"{source.path}:{getattr(node, 'lineno', 0)}: waits: the caller reads first, then folds"
        for node in source.nodes()
        if isinstance(node, waits) or (isinstance(node, ast.Name) and node.id in {"open", "input"})
    ]


# --- how they look at a module ---


def _decoded(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_key(text: str) -> bool:
    return _KEY.search(text) is not None and not _MODULE_AND_NAME.fullmatch(text)


def _docstrings(source: Source) -> Iterator[tuple[int, int]]:
    """Yield where texts stand that are statements of their own."""
    for node in source.nodes():
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value.lineno, node.value.col_offset


def _imported_names(source: Source) -> dict[str, str]:
    """Return what each imported name stands for."""
    names: dict[str, str] = {}
    for node in source.nodes():
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    """Return the dotted name that an expression or an import stands for, or the empty string."""
    match node:
        case ast.Name(id=name):
            return names.get(name, "")
        case ast.Attribute(value=value, attr=attribute):
            inner = _full_name(value, names)
            return f"{inner}.{attribute}" if inner else ""
        case _:
            return ""


# --- each rule holds, and bites ---

RULES: list[Rule] = [
    key_literals,
    clock_or_randomness,
    unseeded_random,
    prints,
    missing_docstring,
    impure_imports,
    waiting_kernel,
]

PLANTED: list[tuple[Rule, str, str]] = [
    (key_literals, "services/store/log.py", 'key = "{ft:SI}:log"'),
    (key_literals, "services/cli/doctor.py", 'key = f"{base}:tallies"'),
    (key_literals, "services/cli/doctor.py", 'key = b"{ft:SI}:changes"'),
    (key_literals, "services/cli/doctor.py", 'key = "%s:checkpoint" % base'),
    (key_literals, "services/cli/doctor.py", 'key = base + ":index"'),
    (clock_or_randomness, "services/tally/fold.py", "from datetime import datetime\nat = datetime.now()"),
    (clock_or_randomness, "services/tally/fold.py", "import datetime as dt\nat = dt.datetime.now(dt.UTC)"),
    (clock_or_randomness, "services/store/log.py", "import time\nat = time.time()"),
    (clock_or_randomness, "services/store/log.py", "from time import monotonic as clock\nat = clock()"),
    (clock_or_randomness, "services/store/log.py", "from time import monotonic\nclock = monotonic"),
    (clock_or_randomness, "services/store/log.py", "from services.runtime.clock import monotonic\nat = monotonic()"),
    (clock_or_randomness, "services/replay/replay.py", "import time\nat = time.gmtime()"),
    (
        clock_or_randomness,
        "services/gateway/door.py",
        "from services.runtime.entropy import new_token\nx = new_token()",
    ),
    (clock_or_randomness, "services/field/outbox.py", "from services.runtime.clock import now\nat = now()"),
    (clock_or_randomness, "services/gateway/app.py", "import uuid\nident = uuid.uuid4()"),
    (clock_or_randomness, "services/gateway/app.py", "from uuid import uuid1\nident = uuid1()"),
    (clock_or_randomness, "services/gateway/app.py", "import os\nseed = os.urandom(8)"),
    (clock_or_randomness, "services/gateway/app.py", "import secrets\ntoken = secrets.token_hex()"),
    (clock_or_randomness, "services/simulator/fleet.py", "import random\nshare = random.random()"),
    (clock_or_randomness, "services/store/log.py", "from random import Random\nrandom = Random(1)"),
    (unseeded_random, "services/simulator/fleet.py", "from random import Random\nrandom = Random()"),
    (prints, "services/store/log.py", 'print("here")'),
    (prints, "services/projector/app.py", 'print("here")'),
    (missing_docstring, "services/store/log.py", "x = 1"),
    (impure_imports, "schemas/events.py", "import redis"),
    (impure_imports, "services/tally/fold.py", "from services.store.contract import Log"),
    (impure_imports, "services/tally/fold.py", "from structlog import get_logger"),
    (waiting_kernel, "services/tally/fold.py", "async def fold(): ..."),
    (waiting_kernel, "schemas/claims.py", 'text = open("claims.toml").read()'),
]

ALLOWED: list[tuple[Rule, str, str]] = [
    (key_literals, KEYS, 'key = "{ft:SI}:log"'),
    (key_literals, "services/store/log.py", '"""Reads {ft:SI}:log."""'),
    (key_literals, "services/cli/__main__.py", 'address = "host:6379"'),
    (key_literals, "services/cli/__main__.py", 'command = "tallies:tallies"'),
    (clock_or_randomness, CLOCK, "from datetime import datetime\nat = datetime.now()"),
    (clock_or_randomness, ENTROPY, "import secrets\nbits = secrets.token_bytes(8)"),
    (clock_or_randomness, "services/field/__init__.py", "from services.runtime.clock import now\nat = now()"),
    (clock_or_randomness, "services/simulator/fleet.py", "from random import Random\nrandom = Random(7)"),
    (
        clock_or_randomness,
        "services/simulator/fleet.py",
        "def draw(random):\n    return random.random()",
    ),
    (prints, "services/cli/__main__.py", 'print("here")'),
    (prints, "services/projector/app.py", f"import sys\n{_LAST_WORDS}"),
    (missing_docstring, "services/__init__.py", ""),
    (impure_imports, "services/tally/fold.py", "import hashlib\nfrom schemas import codec\nimport msgspec"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_house_rule_holds(rule: Rule) -> None:
    places = broken(rule)

    assert not places, f"{rule.__doc__}\n{places}"


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_house_rule_bites(rule: Rule, path: str, text: str) -> None:
    (place,) = rule(Source(path, text))

    assert place.startswith(f"{path}:")


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_a_house_rule_lets_the_rest_alone(rule: Rule, path: str, text: str) -> None:
    assert rule(Source(path, text)) == []


def test_every_rule_is_seen_to_bite() -> None:
    assert set(RULES) == {rule for rule, _, _ in PLANTED}


# --- the layers ---


def test_the_import_contracts_hold(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand in pyproject.toml: imports point down only (DESIGN section 11)."""
    monkeypatch.chdir(ROOT)
    status = lint_imports(no_cache=True)

    assert status == 0, capsys.readouterr().out


def test_the_import_contracts_bite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same check of the same tree fails on a contract that the tree breaks."""
    config = tmp_path / "contracts.toml"
    config.write_text(
        '[tool.importlinter]\nroot_packages = ["schemas", "services"]\n'
        '[[tool.importlinter.contracts]]\nname = "upside down"\ntype = "layers"\n'
        'layers = ["schemas", "services.tally"]\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(config), no_cache=True)

    assert status == 1
    assert "upside down BROKEN" in capsys.readouterr().out


# --- the tests mirror the code ---


def families() -> list[str]:
    """Return the folders of the product that hold modules."""
    modules = [source.path for source in sources() if not source.path.endswith("__init__.py")]
    return sorted({path.rpartition("/")[0] for path in modules})


def without_tests(among: list[str], root: Path) -> list[str]:
    return [
        f"{family}: no test in tests/{family}/"
        for family in among
        if not any((root / "tests" / family).glob("test_*.py"))
    ]


def test_the_tests_mirror_the_code() -> None:
    untested = "\n".join(without_tests(families(), ROOT))

    assert not untested, untested


def test_a_family_without_tests_is_found(tmp_path: Path) -> None:
    (tmp_path / "tests" / "schemas").mkdir(parents=True)
    (tmp_path / "tests" / "schemas" / "test_events.py").touch()

    assert without_tests(["schemas", "services/tally"], tmp_path) == [
        "services/tally: no test in tests/services/tally/"
    ]


def test_every_test_folder_belongs_to_a_part_of_the_product() -> None:
    """A part that is gone takes its tests along."""
    folders = {
        path.parent.relative_to(ROOT / "tests").as_posix()
        for top in ("schemas", "services")
        for path in (ROOT / "tests" / top).rglob("test_*.py")
    }

    assert not folders - set(families())
