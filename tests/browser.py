"""Every notebook in JupyterLab, in a headless Chromium.

Each runs without an error, and each control changes the picture under it.

`make test-browser` names this file; `make test` does not collect it. Screenshots and latencies,
from the key press to the new picture in the page, stay in build/browser; run as a program, the file
prints a table of the latencies. Two notebooks run at a time, so each is slower than alone. Copies
of the notebooks are run, with the stages that `make test` has left in runs/;
`make test-browser SCALE=classroom` runs them at another scale, with the stages of `make reproduce`.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[0-9]*.ipynb"))
OUT = ROOT / "build" / "browser"
SCALE = os.environ.get("SCALE", "smoke")
MINUTES = 10  # at most, for all cells of a notebook
MOVES = 3  # of each control; an odd number leaves a checkbox in its other state
# No news from the network, and all cells in the page, also those out of sight.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TEXT = ("text", "textarea")
KIND = "node => node.matches('.noUi-handle') ? 'slider' : node.type"
CONTROLS = ".noUi-handle, select, input, textarea, button"

# Milliseconds from the next key, click or choice to the new picture or text of a widget.
WATCH = """root => {
    let start;
    for (const kind of ["keydown", "click", "input", "change"])
        root.addEventListener(kind, () => start ??= performance.now(), {capture: true, once: true});
    const shown = node => node.nodeName == "IMG"
        || [...root.querySelectorAll(".widget-html-content, .jp-OutputArea")]
            .some(area => area.contains(node));
    root.latency = new Promise(resolve => {
        new MutationObserver((changes, observer) => {
            if (start === undefined || !changes.some(change => shown(change.target))) return;
            resolve(performance.now() - start);
            observer.disconnect();
        }).observe(root, {
            subtree: true, childList: true, characterData: true, attributeFilter: ["src"]
        });
    });
}"""
LATENCY = """(root, most) => Promise.race([
    root.latency, new Promise(resolve => setTimeout(resolve, most))
])"""
IDLE = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return session?.isReady && session.session?.kernel?.status == "idle";
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator:
    """A Chromium of the system under playwright."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[browser]'"
    )
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        pytest.skip(
            "no browser: neither chromium nor google-chrome is installed "
            "(as root: apt-get install chromium)"
        )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """JupyterLab over copies of the notebooks, with settings of its own.

    Yields (folder, address with {} for a notebook's path).
    """
    home = tmp_path_factory.mktemp("lab")
    OUT.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        ROOT / "notebooks", home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for path in (home / "notebooks").glob("0*.ipynb"):
        before, smoke, after = path.read_text().partition('SCALE: str = \\"smoke\\"')
        assert smoke, f"{path.name} has another parameter cell"
        path.write_text(before + smoke.replace("smoke", SCALE) + after)
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--expose-app-in-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={home / 'notebooks'}",
    ]
    with open(home / "server.log", "w") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {name: str(home / folder) for name, folder in folders.items()},
        )
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        else:
            pytest.fail(f"JupyterLab did not start:\n{(home / 'server.log').read_text()}")
        yield home / "notebooks", f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:  # JupyterLab sometimes hangs as it stops
            server.kill()  # its kernels end once they miss it
            server.wait()


@pytest.fixture
def page(chromium) -> Iterator:
    page = chromium.new_page(viewport={"width": 1400, "height": 1600})
    page.set_default_timeout(120_000)
    yield page
    page.evaluate("window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
    page.close()


def run(page, address: str) -> nbformat.NotebookNode:
    """The notebook after all of its cells have been run in the page.

    From then on window.raised lists the errors of its kernel.
    """
    page.goto(address)
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    page.wait_for_function(IDLE)
    page.evaluate("""() => {
        window.raised = [];
        const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
        kernel.anyMessage.connect((_, {msg}) => {
            if (msg.header.msg_type != "error") return;
            window.raised.push(`${msg.content.ename}: ${msg.content.evalue}`);
        });
        window.ran = false;
        jupyterapp.commands.execute("notebook:run-all-cells").finally(() => window.ran = true);
    }""")
    page.wait_for_function("window.ran", timeout=MINUTES * 60_000)
    return nbformat.from_dict(
        page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON()")
    )


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """Cells that raised or were not run."""
    found = []
    for i, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and cell.source:
            found += [
                f"cell {i + 1}: {out.ename}: {out.evalue}"
                for out in cell.outputs
                if out.output_type == "error"
            ]
            found += [] if cell.execution_count else [f"cell {i + 1} was not run"]
    return found


def bundles(notebook: nbformat.NotebookNode) -> int:
    """The number of leadkit's widgets: a live view beside a picture of it."""
    data = [
        out.get("data", {})
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
    ]
    return sum(
        "application/vnd.jupyter.widget-view+json" in kinds and "image/png" in kinds
        for kinds in data
    )


def move(control, kind: str) -> None:
    """Give a control another value, as a reader would, with the keyboard where it has one."""
    if kind == "slider":
        last = control.evaluate("node => node.ariaValueNow == node.ariaValueMax")
        control.press("ArrowLeft" if last else "ArrowRight")
    elif kind.startswith("select-"):
        control.select_option(
            index=control.evaluate("node => (node.selectedIndex + 1) % node.options.length")
        )
    elif kind == "number":
        control.press("ArrowUp")
    elif kind in TEXT:  # another of its suggestions, else words more and words less
        others = control.evaluate(
            "node => [...node.list?.options ?? []].map(o => o.value)"
            ".filter(value => value != node.value)"
        )
        value, words = control.input_value(), " sort a list"
        control.fill(
            others[0]
            if others
            else value.removesuffix(words)
            if value.endswith(words)
            else value + words
        )
        control.press("Enter")
    else:
        control.click()


def label(control) -> str:
    """The control's words for the reader."""
    return control.evaluate("""node => {
        const labels = node.closest(".jupyter-widgets")
            ?.querySelectorAll(".widget-label, .widget-label-basic") ?? [];
        const words = [...labels, node].map(one => one.innerText.replace("\u200b", "").trim());
        return words.find(text => text) || node.type;
    }""")


def move_all(page, name: str, seconds: float = 6) -> list[dict]:
    """Move each control of each widget; the latencies of those moves that changed the picture.

    [] for a control that never does. A control may wait for another one (a switch), so those that
    changed nothing are moved again when all have been.
    """
    found = []
    for w, root in enumerate(page.locator(".leadkit").all(), 1):
        root.scroll_into_view_if_needed()
        entries = [
            (
                control,
                control.evaluate(KIND),
                {"notebook": name, "widget": w, "control": label(control), "ms": []},
            )
            for control in root.locator(CONTROLS).all()
            if control.is_visible()
        ]
        entries.sort(
            key=lambda entry: entry[1] not in TEXT
        )  # words first: once another filter shows nothing, they change nothing
        for control, kind, entry in [*entries, *entries]:
            for _ in range(
                0 if entry["ms"] else 2 if kind in TEXT else MOVES
            ):  # words that may match nothing are taken back
                root.evaluate(WATCH)
                move(control, kind)
                latency = root.evaluate(LATENCY, seconds * 1000)
                entry["ms"] += [] if latency is None else [round(latency, 1)]
                page.wait_for_timeout(
                    200
                )  # a second drawing of the same move must not be taken for the next one's
                page.wait_for_function(IDLE)
        found += [entry for *_, entry in entries]
        root.screenshot(path=OUT / f"{name}-{w}.png")
    return found


@pytest.mark.parametrize(
    "path", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT / "notebooks").with_suffix(""))
)
def test_notebook_runs_and_its_widgets_answer(path, page, lab):
    name = path.stem if path.parent.name == "notebooks" else f"{path.parent.name}-{path.stem}"
    notebook = run(page, lab[1].format(path.relative_to(ROOT / "notebooks")))
    page.screenshot(path=OUT / f"{name}.png")
    assert problems(notebook) == []
    assert page.locator(".leadkit").count() == bundles(notebook)
    assert page.locator(".jupyter-widgets-error-widget").count() == 0, (
        "a widget is shown as an error"
    )
    moved = move_all(page, name)
    (OUT / f"{name}.json").write_text(json.dumps(moved, indent=1) + "\n")
    assert page.evaluate("window.raised") == [], (
        "what the controls raise, which a reader does not see"
    )
    assert [entry["control"] for entry in moved if not entry["ms"]] == [], (
        "controls that do not change the picture"
    )


TOY = """
import ipywidgets
import matplotlib.pyplot as plt
from leadkit.lessons.widgets import explore

def draw(height, colour, on, dead):
    axes = plt.subplots(figsize=(3, 2))[1]
    axes.bar([0], [height if on else 0], color=colour)
    axes.set_ylim(0, 5)
    return axes
explore(draw, "a bar", height=ipywidgets.IntSlider(4, 0, 5, description="height"),
        dead=ipywidgets.FloatSlider(description="dead"),
        colour=ipywidgets.Dropdown(options=["red", "blue", "green"], description="colour"),
        on=ipywidgets.Checkbox(value=False, description="on"))
"""
BROKEN = """
def draw_broken(broken):
    assert not broken, "broken"
    return draw(1, "red", True, 0)
explore(draw_broken, "a bar", broken=ipywidgets.Checkbox(value=False, description="broken"))
"""


def test_what_goes_wrong_is_found(page, lab):
    """Reported are a dead control, what raises and the cell after it; not one behind a switch."""
    cells = [nbformat.v4.new_code_cell(source) for source in (TOY, BROKEN, "1 / 0", "1")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), lab[0] / "toy.ipynb")
    notebook = run(page, lab[1].format("toy.ipynb"))
    assert problems(notebook) == [
        "cell 3: ZeroDivisionError: division by zero",
        "cell 4 was not run",
    ]
    assert bundles(notebook) == 2
    moved = move_all(page, "toy", seconds=3)
    found = {entry["control"]: len(entry["ms"]) for entry in moved}
    assert found == {"height": MOVES, "dead": 0, "colour": MOVES, "on": MOVES, "broken": 0}
    assert page.evaluate("window.raised") == [
        "ZeroDivisionError: division by zero",
        *["AssertionError: broken"] * MOVES,
    ]


if __name__ == "__main__":
    moves = [move for path in sorted(OUT.glob("*.json")) for move in json.loads(path.read_text())]
    if moves:  # none without a Chromium
        ms = pd.DataFrame([move.pop("ms") for move in moves])
        table = pd.DataFrame(moves).assign(median=ms.median(axis=1), max=ms.max(axis=1)).round(0)
        print(f"From the key to the new picture, milliseconds, {MOVES} moves of each control")
        print(table.to_string(index=False))
