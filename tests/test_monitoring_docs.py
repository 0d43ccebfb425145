"""The dashboard, the alert rules and the pages on monitoring name metrics that there are, and none is left out."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from zeo_server.metrics import METRICS, SERVER_METRICS

DOCS = Path(__file__).parent.parent / "docs"
DASHBOARD = DOCS / "howto/grafana-dashboard.json"
RULES = DOCS / "howto/alert-rules.yml"
PAGES = [DOCS / "howto/monitoring.md", DOCS / "reference/metrics.md", DOCS / "topics/commit.md"]
NAME = re.compile(r"\bzeod_\w+")


def queries() -> set[str]:
    """Every name by which Prometheus knows one of our figures."""
    kinds = {metric.sample: metric.kind for metric in METRICS} | {name: kind for name, kind, _ in SERVER_METRICS}
    spread = [name for name, kind in kinds.items() if kind == "histogram"]
    return {name for name in kinds if name not in spread} | {
        f"{name}_{part}" for name in spread for part in ("bucket", "sum", "count")
    }


def expressions(value: Any) -> Iterator[str]:
    """Walk the queries of a dashboard."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    asked = {name for expression in expressions(dashboard) for name in NAME.findall(expression)}
    assert len(asked) > 20
    assert asked <= queries(), f"no such metrics: {sorted(asked - queries())}"


def test_the_dashboards_panels_are_whole() -> None:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    for panel in panels:
        for target in panel["targets"]:
            text = target["expr"]
            assert all(text.count(left) == text.count(right) for left, right in ("()", "[]", "{}")), text


def test_the_alerts_ask_for_metrics_that_there_are_and_are_told() -> None:
    rules = RULES.read_text("utf-8")
    asked = set(NAME.findall(rules))
    assert asked <= queries(), f"no such metrics: {sorted(asked - queries())}"
    page = PAGES[0].read_text("utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert alerts
    assert [alert for alert in alerts if f"**{alert}**" not in page] == []
    assert set(re.findall(r"\*\*(Zeod\w+)\*\*", page)) == set(alerts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_name_metrics_that_there_are(page: Path) -> None:
    names = queries() | {metric.sample for metric in METRICS} | {name for name, _, _ in SERVER_METRICS}
    assert set(NAME.findall(page.read_text("utf-8"))) <= names
