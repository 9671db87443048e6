"""Results in notebooks: well-formed HTML that says what the report says."""

from xml.etree import ElementTree

import numpy as np
import pytest

from derand_fast import discover_structure, max_cut, newton_cg
from derand_fast.notebook import report_as_html


class Bowl:
    n_params = 2

    def value_and_grad(self, x):
        return float(x @ x), 2.0 * x

    def hvp(self, x, v):
        return 2.0 * v


RESULTS = {
    "cut": lambda: max_cut(np.array([[0.0, 1.0], [1.0, 0.0]])),
    "descent": lambda: max_cut(
        np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]), method="newton-cg", bound=False
    ),
    "point": lambda: newton_cg(Bowl(), np.ones(2), rho=1e-6),
    "structure": lambda: discover_structure("tanh", d=2, hidden=3, lam=0.01),
}


@pytest.mark.parametrize("name", RESULTS)
def test_html_holds_the_report(name):
    result = RESULTS[name]()
    table = ElementTree.fromstring(result._repr_html_()).find("table")
    lines = str(result).splitlines()
    assert len(table) == len(lines)
    for row, line in zip(table, lines, strict=True):
        cells = [cell.text or "" for cell in row]
        assert " ".join(cells).split() == line.split()


def test_text_is_escaped_and_parts_are_indented():
    html = report_as_html("<b>", "graph    a<b & c\n  inner  1")
    root = ElementTree.fromstring(html)
    assert root.find("strong").text == "<b>"
    (_, first), (label, _) = root.find("table")
    assert first.text == "a<b & c"
    assert "padding-left: 2em" in label.get("style")
