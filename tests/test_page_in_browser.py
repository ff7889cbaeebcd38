"""The page in Chromium, opened from disk, without a network: what a reader does with pointer and keyboard works."""

import json
import shutil

import pytest
from commands import one
from test_page import runs_of
from test_trained import WORDS

import memlayers
from memlayers import tracing
from memlayers.studies.page.write import write
from memlayers.training.record import model_path
from memlayers.training.run import run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytest.importorskip("vl_convert", reason='vl-convert-python is not installed: pip install -e ".[page]"')
playwright = pytest.importorskip(
    "playwright.sync_api", reason='playwright is not installed: pip install -e ".[browser]"', exc_type=ImportError
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium"),
]
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of two studies and one model, and the model."""
    import records

    folder = tmp_path_factory.mktemp("browsed")
    front = records.write(folder / "front", *runs_of("front", ("dense", "dense_2x", "memory")))
    command = (
        "python scripts/train.py experiment=front arm=dense,dense_2x,memory training.exposures=4,16 'seed=range(2)'"
    )
    layout = "frontier: true\nrows: [arm, num_keys, training.exposures]\ncolumns: training.exposures\n"
    (front / "study.yaml").write_text(f"question: Why?\n{layout}commands: [{json.dumps(command)}]\n")
    other = records.write(folder / "other", *runs_of("other", ("dense", "memory")))
    config = one(*WORDS, "arm=memory", f"results={folder / 'local'}")
    run(config)
    path = write([front, other], folder / "page.html", run=str(model_path(config)))
    return path, memlayers.load(model_path(config))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        # Containers have no user namespaces, and pages of our own need no sandbox.
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[WIDE, NARROW], ids=["wide", "narrow"])
def page(request, made, browser):
    """Opened; the test fails by any request that is not for the file, and by any error of a script."""
    context = browser.new_context(viewport=request.param, offline=True, color_scheme="dark", reduced_motion="reduce")
    wrong: list[str] = []
    opened = context.new_page()
    opened.on("request", lambda asked: wrong.append(asked.url) if asked.url != made[0].as_uri() else None)
    opened.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(made[0].as_uri())
    opened.wait_for_selector(".chart svg >> nth=3")
    yield opened
    assert not wrong
    context.close()


def texts(page, selector: str) -> list[str]:
    return [text.strip() for text in page.locator(selector).all_inner_texts()]


def slots_shown(page) -> list[int]:
    return [int(text) for text in texts(page, "#reads [data-slot]")]


def answers_shown(page) -> list[tuple[str, float]]:
    lines = page.locator("#answers li")
    return [
        (lines.nth(i).locator("span").first.inner_text(), float(lines.nth(i).locator("span").last.inner_text()))
        for i in range(lines.count())
    ]


def is_told(page, model, subject: str, relation: str) -> bool:
    """Whether the explorer shows what the model itself says of a fact."""
    reply = model.ask(subject, relation)
    answers = answers_shown(page)
    assert [answer for answer, _ in answers] == list(reply.objects)
    assert [p for _, p in answers] == pytest.approx(reply.probabilities, abs=6e-4)
    traced = tracing.trace(model, subject, relation)
    assert slots_shown(page) == [read.slot for read in traced]
    weights = page.locator("#reads tbody td:nth-child(4)").all()
    assert [float(one.inner_text()) for one in weights] == pytest.approx([r.weight for r in traced], abs=6e-4)
    others = texts(page, "#reads tbody td:nth-child(6)")
    assert [int(text) for text in others] == [read.readers for read in traced]
    return True


def test_nothing_is_wider_than_the_window_in_light_and_dark(page):
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        wide = "[...document.querySelectorAll('.chart svg, #grid')].every(one => one.clientWidth <= innerWidth)"
        assert page.evaluate(wide)
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert page.locator(".chart path[stroke^='var(--arm']").count() > 0


def test_tables_sort_by_the_numbers_of_a_column(page):
    table = page.locator("#front table").first
    column = texts(page, "#front table >> nth=0 >> thead th").index("recall")
    numbers = f"[...document.querySelector('#front table').tBodies[0].rows].map(r => +r.cells[{column}].dataset.n)"
    head = table.locator("thead th").nth(column)
    head.locator("button").click()
    falling = page.evaluate(numbers)
    assert head.get_attribute("aria-sort") == "descending" and falling == sorted(falling, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and page.evaluate(numbers) == sorted(falling)
    assert len(set(falling)) > 2
    arms = texts(page, "#front table >> nth=0 >> tbody th")
    table.locator("thead th").first.locator("button").click()
    assert texts(page, "#front table >> nth=0 >> tbody th") == sorted(arms) and head.get_attribute("aria-sort") is None


def marks(page, colour: str) -> int:
    """Points and lines of a colour in the first figure."""
    shapes = f"#front .chart path:is([stroke='{colour}'], [fill='{colour}'])"
    return page.locator(shapes).count()


def test_an_arm_that_is_switched_off_has_no_marks_and_comes_back(page):
    button = page.locator("#front .legend [data-arm=memory]")
    colour = page.evaluate("one => one.style.getPropertyValue('--own')", button.element_handle()).strip()
    before, grey = marks(page, colour), marks(page, "var(--grey)")
    assert before > 2 and grey > 2
    button.click()
    page.wait_for_function("document.querySelectorAll('#front .chart').length > 0")
    assert button.get_attribute("aria-pressed") == "false"
    playwright.expect(page.locator(f"#front .chart path[fill='{colour}']")).to_have_count(0)
    assert marks(page, colour) == 0 and marks(page, "var(--grey)") == grey
    page.click("#front .legend .all")
    playwright.expect(page.locator("#front .legend .all")).to_be_hidden()
    page.wait_for_function(f"document.querySelectorAll(\"#front .chart path[fill='{colour}']\").length > 0")
    assert marks(page, colour) == before


@pytest.mark.parametrize("study", ["front", "other"])  # with points above costs, and beside names
def test_a_click_on_a_point_tells_its_settings_and_its_command(page, study):
    chart = page.locator(f"#{study} .chart").first
    chart.scroll_into_view_if_needed()
    points = chart.locator("g.mark-symbol.role-mark path")
    box = points.nth(points.count() - 1).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator(f"#{study} .run").first.inner_text()
    assert "training.exposures" in told
    assert study == "other" or "python scripts/train.py experiment=front world=w arm=" in told


def test_another_fact_changes_answer_and_slots_to_those_of_the_model(page, made):
    model = made[1]
    subjects, relations = texts(page, "[name=subject] option"), texts(page, "[name=relation] option")
    page.select_option("[name=subject]", label=subjects[0])
    page.select_option("[name=relation]", label="country")
    before = slots_shown(page)
    assert is_told(page, model, subjects[0], "country")
    page.select_option("[name=subject]", label=subjects[9])
    page.select_option("[name=relation]", label=relations[-1])
    assert slots_shown(page) != before and is_told(page, model, subjects[9], relations[-1])
    page.click("#empty")
    changed = tracing.copied(model)
    tracing.forget(changed, model.fact(subjects[9], relations[-1]))
    assert [answer for answer, _ in answers_shown(page)] == list(changed.ask(subjects[9], relations[-1]).objects)
    name = page.locator("#sharing button").first.evaluate("one => one.firstChild.textContent")
    page.locator("#sharing button").first.click()
    assert page.locator("#empty").get_attribute("aria-pressed") == "false"
    assert is_told(page, model, *name.split(" ", 1))


def test_the_grid_is_drawn_and_tells_the_slot_under_the_pointer(page):
    page.locator("#grid").scroll_into_view_if_needed()
    width = page.locator("#grid").bounding_box()["width"]
    page.locator("#grid").hover(position={"x": width / 2, "y": width / 2})
    tip = page.locator("#tip").inner_text()
    assert tip.startswith("slot ") and "of all facts read it" in tip
    picture = "document.getElementById('grid').toDataURL()"
    before = page.evaluate(picture)
    page.locator("#heads label").nth(2).click()
    assert page.evaluate(picture) != before and "head 1" in page.locator("#scale").inner_text()


def test_the_keyboard_alone_sorts_switches_steps_and_chooses(page, made):
    """Tab goes everywhere in the order of the page, and all that it reaches shows that it has the focus."""
    seen: list[str] = []
    wanted = ["theme", "legend", "chart", "table", "subject", "relation", "heads", "empty", "sharing"]
    for _ in range(200):
        page.keyboard.press("Tab")
        what = page.evaluate(
            """() => {
              const one = document.activeElement;
              const shown = one.matches("input") ? one.closest("label") : one;
              if (getComputedStyle(shown).outlineStyle === "none") return "no ring on " + one.outerHTML;
              const kinds = ["legend", "chart", "heads", "sharing"];
              if (one.closest("thead")) return "table";
              return kinds.find(kind => one.closest("." + kind + ", #" + kind)) || one.name || one.id || one.tagName;
            }"""
        )
        assert not what.startswith("no ring"), what
        if what not in seen:
            seen.append(what)
            use(page, what)
        if {*wanted} <= {*seen}:
            break
    assert [one for one in seen if one in wanted] == wanted
    subject, relation = (page.evaluate(f"document.querySelector('[name={name}]').selectedOptions[0].text") for name in (
        "subject", "relation"
    ))  # fmt: skip
    assert is_told(page, made[1], subject, relation)


def use(page, what: str) -> None:
    """Do with the keyboard what the element with the focus is for, and see that it was done."""
    focused = page.locator(":focus")
    if what == "theme":
        before = page.evaluate("document.documentElement.dataset.theme")
        page.keyboard.press("Enter")
        assert page.evaluate("document.documentElement.dataset.theme") != before
    elif what == "legend":
        page.keyboard.press("Space")
        assert focused.get_attribute("aria-pressed") == "false"
    elif what == "chart":
        page.keyboard.press("ArrowRight")
        assert page.locator("#tip").is_visible() and page.locator(".run.chosen code").count() == 1
    elif what == "table":
        page.keyboard.press("Enter")
        assert focused.evaluate("one => one.parentElement.getAttribute('aria-sort')") is not None
    elif what in ("subject", "relation"):
        before = slots_shown(page)
        page.keyboard.press("ArrowDown")
        assert slots_shown(page) != before
    elif what == "heads":
        page.keyboard.press("ArrowRight")
        assert "head 0" in page.locator("#scale").inner_text()
    elif what == "empty":
        page.keyboard.press("Space")
        assert "hold zeros" in page.locator("#truth").inner_text()
        page.keyboard.press("Space")


def test_without_javascript_the_tables_can_be_read(made, browser):
    context = browser.new_context(java_script_enabled=False, viewport=NARROW)
    opened = context.new_page()
    opened.goto(made[0].as_uri())
    assert opened.locator("#front tbody tr").count() >= 6 and opened.locator("noscript p").is_visible()
    assert opened.locator("#front td >> nth=3").is_visible()
    context.close()
