"""The playground as its users meet it: the real command, in a real browser."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from src.errors import UserError
from src.playground import server as serving
from src.playground.choices import Choice, Playground
from tests.conftest import REPO
from tests.playground.play_world import overrides_for, playing, shared_world

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

pytestmark = pytest.mark.slow

#: Starts the command in a process that writes down whom it talks to.
WATCHED = """
import json, runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
book = open(sys.argv.pop(1), "a", buffering=1)
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        where = arguments[1] if event != "socket.getaddrinfo" else arguments[0]
        book.write(json.dumps([event, where if isinstance(where, (str, tuple, list)) else repr(where)]) + "\\n")
sys.addaudithook(note)
sys.argv[0] = "play"
runpy.run_module("src.play", run_name="__main__", alter_sys=True)
"""

SHOWN = "document.querySelector('.demonstration').innerHTML"
CHOICE = Choice("fgsm", 0.2, "binarize", "gray_box")


@dataclass
class Server:
    """A playground that is served."""

    process: subprocess.Popen[str]
    address: str
    book: Path  #: whom the process talked to
    overrides: list[str]


@pytest.fixture(scope="module")
def server(slice_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    overrides = overrides_for(shared_world(tmp_path_factory, folder, slice_root), slice_root)
    command = [sys.executable, "-c", WATCHED, str(folder / "book"), *overrides, "port=0", "thumbnails=12"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=REPO, env=environment, **pipes)
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"playing at (http://\S+)", line):
            yield Server(process, found[1], folder / "book", overrides)
            break
    else:
        pytest.fail(said)
    if process.poll() is None:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def playground(server: Server) -> Playground:
    """The same without a page."""
    return playing(*server.overrides)


@pytest.fixture(scope="module")
def contexts() -> "list[BrowserContext]":
    """What is open in the browser."""
    return []


@pytest.fixture(scope="module")
def opened_page(server, browser, contexts):
    """The page, opened once for all tests, and what went wrong in it: errors, and what it asked of anybody else."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened, errors, foreign = context.new_page(), [], []
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("response", lambda answer: errors.append(answer.url) if answer.status >= 400 else None)
    opened.on("request", lambda request: None if ours(request.url, server) else foreign.append(request.url))
    opened.on("websocket", lambda socket: foreign.append(socket.url))
    opened.goto(server.address)
    opened.wait_for_selector(".demonstration", timeout=60_000)
    opened.set_default_timeout(20_000)
    wait_until_it_listens(opened)
    contexts.append(context)
    return opened, errors, foreign


@pytest.fixture
def page(opened_page, playground):
    """The page as it was when it was opened; fails afterwards if it had an error or asked anybody else for anything."""
    opened, errors, foreign = opened_page
    if opened.get_by_label("Attack", exact=True).input_value() != CHOICE.attack:
        opened.get_by_label("Attack", exact=True).click()
        opened.get_by_role("option", name=CHOICE.attack, exact=True).click()
    opened.get_by_label("number input for eps").fill(f"{CHOICE.eps}")
    opened.keyboard.press("Enter")
    for name in (CHOICE.defense, CHOICE.threat):
        opened.get_by_label(name, exact=True).check()
    opened.get_by_role("button", name="test image 0,").click()
    until(opened, shown_by(playground, 0, CHOICE))
    yield opened
    assert errors == []
    assert foreign == []


def wait_until_it_listens(page) -> None:
    """Gradio shows a page before it hears what is done to it."""
    from playwright.sync_api import TimeoutError as NoReaction

    begin = page.inner_html(".demonstration")
    for index in (1, 2, 3):
        with suppress(NoReaction):
            page.get_by_role("button", name=f"test image {index},").click()
            page.wait_for_function(f"begin => {SHOWN} !== begin", arg=begin, timeout=10_000)
            break
    page.get_by_role("button", name="test image 0,").click()
    page.wait_for_function(f"begin => {SHOWN} === begin", arg=begin)


def ours(url: str, server: Server) -> bool:
    return url.startswith((f"{server.address}/", "data:", f"blob:{server.address}/"))


def until(page, expected) -> None:
    """Wait until the page says what a demonstration comes to, then compare all of it."""
    rows = [[f"{100 * value:.1f}" for value in row] for row in zip(*confidences(expected), strict=True)]
    try:
        page.wait_for_function(
            "rows => JSON.stringify([...document.querySelectorAll('.demonstration tbody tr')].map("
            "row => [...row.querySelectorAll('td')].map(cell => cell.textContent))) === rows",
            arg=json.dumps(rows, separators=(",", ":")),
            timeout=20_000,
        )
    except Exception:
        pytest.fail(f"{page.inner_text('#shown')}\n\nexpected {rows}")
    assert pixels(page) == [expected_pixels(each) for each in images(expected)]


def confidences(shown):
    return shown.before.tolist(), shown.undefended.tolist(), shown.defended.tolist()


def images(shown):
    perturbation = 0.5 + shown.perturbation / (2 * shown.eps) if shown.eps else shown.original * 0 + 0.5
    return shown.original, shown.attacked, perturbation, shown.purified


def expected_pixels(image) -> list[int]:
    return (image.clamp(0, 1) * 255).round().int().flatten().tolist()


def pixels(page) -> list[list[int]]:
    """The grey values of the pictures, as the browser has decoded them."""
    return page.evaluate(
        """async () => Promise.all([...document.querySelectorAll(".demonstration img")].map(async (image) => {
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return [...context.getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 == 0);
        }))"""
    )


def shown_by(playground: Playground, index: int, choice: Choice):
    return playground.show(playground.test.images[index], int(playground.test.labels[index]), choice)


def test_it_follows_image_eps_attack_defense_and_threat(page, playground):
    until(page, shown_by(playground, 0, CHOICE))
    page.get_by_role("button", name="test image 3,").click()
    until(page, shown_by(playground, 3, CHOICE))
    page.get_by_label("Number of the test image").fill("77")
    until(page, shown_by(playground, 77, CHOICE))
    page.get_by_label("number input for eps").fill("0.3")
    page.keyboard.press("Enter")
    until(page, shown_by(playground, 77, Choice("fgsm", 0.3, "binarize", "gray_box")))
    page.get_by_label("vqvae 0.5", exact=True).check()
    until(page, shown_by(playground, 77, Choice("fgsm", 0.3, "vqvae 0.5", "gray_box")))
    page.get_by_label("adaptive", exact=True).check()
    until(page, shown_by(playground, 77, Choice("fgsm", 0.3, "vqvae 0.5", "adaptive")))
    page.get_by_label("Attack", exact=True).click()
    page.get_by_role("option", name="mifgsm").click()
    until(page, shown_by(playground, 77, Choice("mifgsm", 0.3, "vqvae 0.5", "adaptive")))
    page.get_by_label("number input for eps").fill("0")
    page.keyboard.press("Enter")
    until(page, shown_by(playground, 77, Choice("mifgsm", 0, "vqvae 0.5", "adaptive")))
    assert "nothing is attacked" in page.inner_text("[role=status]")


def test_the_last_of_many_changes_is_what_is_shown(page, playground):
    for index in (1, 2, 3, 4, 5, 6, 7):
        page.get_by_role("button", name=f"test image {index},").click()
    page.get_by_label("vqvae 0.5", exact=True).check()
    page.get_by_label("kmeans", exact=True).check()
    until(page, shown_by(playground, 7, Choice("fgsm", 0.2, "kmeans", "gray_box")))


def test_the_keyboard_is_enough(page, playground):
    page.get_by_role("button", name="test image 5,").press("Enter")
    until(page, shown_by(playground, 5, CHOICE))
    page.get_by_label("range slider for eps").press("ArrowRight")
    until(page, shown_by(playground, 5, Choice("fgsm", 0.205, "binarize", "gray_box")))
    page.get_by_label("kmeans", exact=True).press("Space")
    until(page, shown_by(playground, 5, Choice("fgsm", 0.205, "kmeans", "gray_box")))


def test_it_has_words_for_who_does_not_see_it(page):
    for picture in page.locator(".demonstration img").all():
        assert len(picture.get_attribute("alt")) > 10
    assert page.locator(".demonstration th[scope=row]").count() == 10
    assert page.locator(".demonstration caption").count() == 1
    said = page.inner_text("[role=status]")
    assert "Labelled 7" in said and "fgsm" in said and "binarize" in said


def draw(page, corners: list[tuple[float, float]]) -> None:
    """A line on the canvas; corners in parts of it."""
    page.wait_for_function("document.querySelector('#canvas canvas')?.getBoundingClientRect().width > 0")
    page.wait_for_selector('#canvas [aria-label="Brush Size"]')  # the pen is taken up
    box = page.locator("#canvas canvas").last.bounding_box()
    middle = (box["x"] + box["width"] / 2 - 140, box["y"] + box["height"] / 2 - 140)
    places = [(middle[0] + 280 * x, middle[1] + 280 * y) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def test_what_is_drawn_is_attacked_too(page, playground):
    page.get_by_role("tab", name="Draw").click()
    page.wait_for_selector("text=Draw something")
    draw(page, [(0.5, 0.2), (0.5, 0.8)])
    page.wait_for_selector("text=Nobody said what this is", timeout=20_000)
    original = pixels(page)[0]
    rows = [original[i : i + 28] for i in range(0, 784, 28)]
    columns = list(zip(*rows, strict=True))
    assert sum(any(row) for row in rows) == 20
    assert 2 <= sum(any(column) for column in columns) <= 5
    assert max(original) == 255
    page.get_by_label("It is meant as").click()
    page.get_by_role("option", name="9", exact=True).click()
    page.wait_for_selector("text=Labelled 9", timeout=20_000)
    page.get_by_role("tab", name="Pick").click()
    until(page, shown_by(playground, 0, CHOICE))


def test_a_number_that_is_no_test_image(page):
    page.get_by_label("Number of the test image").fill("120")
    page.wait_for_selector("text=the last is 119", timeout=20_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_on_a_telephone(server, browser, scheme):
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto(server.address)
    opened.wait_for_selector(".demonstration", timeout=60_000)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360
    background, ink = (
        opened.locator("body").evaluate(f"body => getComputedStyle(body).{each}")
        for each in ("backgroundColor", "color")
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, ink)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")
    context.close()


def test_an_end_by_ctrl_c_after_talking_to_nobody_else(server, contexts):
    """The last test of this file: it ends the server."""
    while contexts:
        contexts.pop().close()
    assert not list(server.book.parent.glob("gradio*"))
    server.process.send_signal(signal.SIGINT)
    said, _ = server.process.communicate(timeout=20)
    assert server.process.returncode == 130
    assert "Traceback" not in said
    contacts = [json.loads(line) for line in server.book.read_text().splitlines()]
    elsewhere = [each for each in contacts if not re.search(r"127\.0\.0\.1|localhost|::1", json.dumps(each))]
    assert elsewhere == []
    assert not list(server.book.parent.glob("play-*"))


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port} is in use.*port=0") as error:
            serving.listen("127.0.0.1", port)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 70000, "port=70000 is not a port"),
        ("127.0.0.1", "http", "port=http is not a port"),
        ("127.0.0.1", None, "port=None is not a port"),
        ("192.0.2.1", 0, r"host=192\.0\.2\.1 is no address of this machine"),
        ("not a host", 0, "host=not a host is no address"),
    ],
)
def test_an_address_that_cannot_be_had(host, port, words):
    with pytest.raises(UserError, match=words) as error:
        serving.listen(host, port)
    assert "\n" not in str(error.value)


def test_who_leaves_while_being_answered_is_no_error():
    from starlette.requests import ClientDisconnect

    def recorded(error):
        return logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "", (), (type(error), error, None))

    assert not serving.is_no_farewell(recorded(ClientDisconnect()))
    assert serving.is_no_farewell(recorded(RuntimeError("a bug")))
    assert serving.is_no_farewell(logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "said", (), None))


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "src.playground.page", raising=False)
    monkeypatch.delattr("src.playground.page", raising=False)
    with pytest.raises(UserError, match=r"gradio.*pip install .*'\.\[play\]'"):
        serving._page_module()
