"""A page in a browser without a network: figures are drawn, toggles switch, tables sort, nothing fails."""

import html
import json
import re
import shutil
import subprocess

import pytest

from seqjax.reports.page import Figure, Section, Table, Toggle, page

pytest.importorskip("plotly", reason="the plots extra is not installed")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium here")

DATA = [{"type": "scatter", "name": name, "x": [1, 2, 3], "y": [1, 10, 100]} for name in ("a", "b")]
TOGGLES = [
    Toggle("log", {"yaxis.type": "log"}, {"yaxis.type": "linear"}),
    Toggle("b", {}, {}, traces=[1], checked=True),
]
TABLE = Table(["name", "loss"], [["x", 10.0], ["y", 9.0], ["z", None], ["w", 100.0]])

PROBE = """
const found = { errors: window.failures };
const plot = document.querySelector(".plot");
const rows = () => [...document.querySelectorAll("tbody tr")].map((row) => row.cells[0].textContent).join("");
const shown = () => plot.querySelectorAll(".scatterlayer .trace").length;
found.drawn = document.querySelectorAll(".plot .main-svg").length > 0;
found.ground = getComputedStyle(document.body).backgroundColor;
found.axis = [plot.layout.yaxis.type]; found.traces = [shown()]; found.rows = [rows()];
document.querySelectorAll("input").forEach((box) => box.click());
found.axis.push(plot.layout.yaxis.type); found.traces.push(shown());
for (const time of [1, 2]) { document.querySelectorAll("th button")[1].click(); found.rows.push(rows()); }
document.documentElement.dataset.found = JSON.stringify(found);
"""


@pytest.mark.parametrize(("scheme", "ground"), [(1, "rgb(246, 247, 249)"), (0, "rgb(18, 22, 28)")])
def test_a_page_works(tmp_path, scheme, ground):
    figure = Figure(DATA, {}, toggles=TOGGLES)
    text = page("t", [Section("s", [figure, TABLE])])
    listen = (
        "<script>window.failures = []; addEventListener('error', (e) => failures.push(e.message));</script>"
    )
    text = text.replace("<head>", f"<head>{listen}").replace("</body>", f"<script>{PROBE}</script></body>")
    path = tmp_path / "page.html"
    path.write_text(text)
    done = subprocess.run(
        [
            *(
                str(BROWSER),
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
            ),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--blink-settings=preferredColorScheme={scheme}", "--virtual-time-budget=3000", "--dump-dom"),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    attribute = re.search(r'data-found="(.*?)"', done.stdout)
    assert attribute is not None, done.stderr
    assert json.loads(html.unescape(attribute[1])) == {
        "errors": [],
        "drawn": True,
        "ground": ground,
        "axis": ["linear", "log"],
        "traces": [2, 1],
        "rows": ["xyzw", "yxwz", "wxyz"],
    }
