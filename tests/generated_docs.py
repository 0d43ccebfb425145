"""The parts of the documentation that are made from the code: test_docs.py compares, `python -m tests.generated_docs`
writes them anew, between the marks that say which part it is.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from zeo_core.wire.methods import CLIENT_CALLS, SERVER_PUSHES, Method
from zeo_server.commit.phases import ENDED, TRANSITIONS, Phase, Step
from zeo_server.metrics import METRICS, SERVER_METRICS

__all__ = ["PARTS", "Part", "part_of", "with_part"]

ROOT = Path(__file__).parent.parent

Part = tuple[str, str]
"""A page, and the name of a part of it."""


def _methods(methods: Mapping[str, Method]) -> str:
    return "\n".join(_method(method) for method in methods.values())


def _method(method: Method) -> str:
    names = ", ".join(argument.name + "?" * argument.optional for argument in method.arguments)
    lines = [f"### `{method.name}({names})`", "", method.doc, ""]
    lines += [f"- `{argument.name}`: {argument.expects}" for argument in method.arguments]
    lines.append("- one-way" if method.reply is None else f"- reply: {method.reply}")
    lines.append(f"- role: {method.role}")
    return "\n".join([*lines, ""])


def _storage_metrics() -> str:
    rows = ["| metric | kind | |", "|---|---|---|"]
    rows += [f"| `{metric.sample}` | {metric.kind} | {metric.doc} |" for metric in METRICS]
    return "\n".join(rows) + "\n"


def _server_metrics() -> str:
    rows = ["| metric | kind | |", "|---|---|---|"]
    rows += [f"| `{name}` | {kind} | {doc} |" for name, kind, doc in SERVER_METRICS]
    return "\n".join(rows) + "\n"


def _phases() -> str:
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Phase.BEGUN.name}: tpc_begin"]
    for phase, steps in TRANSITIONS.items():
        following: dict[Phase, list[Step]] = {}
        for step, then in steps.items():
            following.setdefault(then, []).append(step)
        lines += [
            f"    {phase.name} --> {then.name}: {', '.join(s.value for s in by)}" for then, by in following.items()
        ]
    lines += [f"    {phase.name} --> [*]" for phase in Phase if phase in ENDED]
    lines += [f"    {phase.name}: {phase.value}" for phase in Phase]
    return "\n".join([*lines, "```", ""])


PARTS: Mapping[Part, Callable[[], str]] = {
    ("docs/reference/rpc.md", "calls"): lambda: _methods(CLIENT_CALLS),
    ("docs/reference/rpc.md", "pushes"): lambda: _methods(SERVER_PUSHES),
    ("docs/reference/metrics.md", "storage"): _storage_metrics,
    ("docs/reference/metrics.md", "server"): _server_metrics,
    ("docs/topics/commit.md", "phases"): _phases,
}


def part_of(text: str, name: str) -> str:
    """Return what stands between a part's marks; ValueError if they are not there."""
    return _between(text, name)[1]


def with_part(text: str, name: str, part: str) -> str:
    """Return the page with a part in the place of what stands between its marks."""
    before, _, after = _between(text, name)
    return f"{before}{part}{after}"


def _between(text: str, name: str) -> tuple[str, str, str]:
    found = re.fullmatch(rf"(.*<!-- made from the code: {name} -->\n\n)(.*?)(\n<!-- end -->.*)", text, re.DOTALL)
    if found is None:
        raise ValueError(f"no marks of the part {name}")
    return found[1], found[2], found[3]


def main() -> None:
    """Write all parts anew."""
    for (page, name), make in PARTS.items():
        path = ROOT / page
        path.write_text(with_part(path.read_text("utf-8"), name, make()), "utf-8")


if __name__ == "__main__":
    main()
