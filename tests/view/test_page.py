"""The page as a file: one document, nothing from outside, and no element that a token made."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import pytest

from regard.view.difference import difference
from regard.view.notebook import notebook
from regard.view.page import html, script
from regard.view.scene import scene
from tests.view import traces


class Elements(HTMLParser):
    """Collects elements, attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[int, str] = {}
        self.closed = 0  # how many elements had begun when one last ended
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.closed = len(self.found)

    def handle_data(self, data: str) -> None:
        place = len(self.found) - 1
        if self.closed <= place:
            self.inside[place] = self.inside.get(place, "") + data

    def text_of(self, name: str, **wanted: str) -> str:
        for place, (tag, attributes) in enumerate(self.found):
            if tag == name and all(attributes.get(key) == value for key, value in wanted.items()):
                return self.inside[place]
        raise AssertionError(f"no {name} {wanted}")


def test_no_element_comes_from_a_token_or_a_model_name() -> None:
    plain, hostile = traces.decoder(12, 2, 2), traces.hostile()
    hostile.model = "</title><script>alert(4)</script>"
    hostile.made = {"class": "</script><script>alert(5)</script>"}
    counted = [[tag for tag, _ in Elements(html(trace)).found] for trace in (plain, hostile)]
    assert counted[0] == counted[1]


def test_the_scene_comes_back_from_the_page() -> None:
    trace = traces.hostile()
    inside = Elements(html(trace)).text_of("script", id="scene")
    assert json.loads(inside) == json.loads(json.dumps(scene(trace)))
    assert "<" not in inside and inside.isascii()


def test_the_policy_forbids_everything_but_this_script_and_style() -> None:
    page = Elements(html(traces.decoder(4, 1, 1)))
    policy = next(a["content"] for _, a in page.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none';")
    assert "unsafe" not in policy and "http" not in policy
    for name, attributes in (("script", {"type": "module"}), ("style", {})):
        digest = hashlib.sha256(page.text_of(name, **attributes).encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy, name


def test_nothing_is_fetched_and_no_markup_is_built_from_strings() -> None:
    page = html(traces.decoder(4, 1, 1))
    elements = Elements(page)
    assert not any({"src", "href"} & set(attributes) for _, attributes in elements.found)
    code = script()
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "XMLHttp",
        "import(",
    ):
        assert word not in code, word
    assert code.count("fetch(") == 1 and "connect-src" not in page, "only a page that is served may ask its server"
    assert re.findall(r"https?://[^\s\"']+", code + page) == ["http://www.w3.org/2000/svg"] * 2


def test_every_module_is_joined_once_after_what_it_needs() -> None:
    names = {
        file.name.removesuffix(".js")
        for file in resources.files("regard.view.page").iterdir()
        if file.name.endswith(".js")
    }
    main, lesson = (re.findall(r"^const module_(\w+) = ", script(entry), re.MULTILINE) for entry in ("main", "lesson"))
    assert len(set(main)) == len(main) and len(set(lesson)) == len(lesson)
    assert set(main) | set(lesson) == names
    assert (main[-1], lesson[-1]) == ("main", "lesson")
    assert not re.search(r"^(import|export) ", script(), re.MULTILINE)


def test_the_page_is_the_same_every_time() -> None:
    trace = traces.decoder(6, 1, 2)
    assert html(trace) == html(trace)


def test_a_page_of_144_heads_stays_within_8_megabytes() -> None:
    page = html(traces.decoder(300, 12, 12))
    assert len(page.encode()) < 8_000_000


def test_a_comparison_is_one_page() -> None:
    page = Elements(html(difference(traces.decoder(6, 1, 2), traces.decoder(6, 1, 2, seed=4))))
    given = json.loads(page.text_of("script", id="scene"))
    assert [scene["signed"] for scene in given["scenes"]] == [False, False, True]


@pytest.mark.parametrize("make", [traces.hostile, lambda: traces.decoder(6, 1, 2)])
def test_a_notebook_gets_one_frame_and_nothing_else(make: object) -> None:
    trace = make()  # type: ignore[operator]
    frame = Elements(notebook(trace))
    assert [tag for tag, _ in frame.found] == ["iframe"]
    attributes = frame.found[0][1]
    assert attributes["srcdoc"] == html(trace)
    assert attributes["sandbox"] == "allow-scripts"
