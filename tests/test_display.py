"""The display of a study, driven by records and notes that a test writes where runs would."""

import os
import time

import pytest
from displays import fail, finish, note, plain, printed, rendered, terminal, wait_for
from stubs import run_config

from memlayers.config import RunConfig
from memlayers.studies import display
from memlayers.studies.compose import jobs_of
from memlayers.studies.display import StudyDisplay, labels
from memlayers.training.progress_notes import partial_path, read_partial
from memlayers.training.record import record_path


@pytest.fixture(autouse=True)
def look_often(monkeypatch):
    monkeypatch.setattr(display, "EVERY", 0.005)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def jobs(tmp_path) -> list[RunConfig]:
    pairs = [("dense", 0), ("memory", 0), ("memory", 1)]
    return [run_config(arm=arm, seed=seed, study="mine", results=str(tmp_path)) for arm, seed in pairs]


# --------------------------------------------------------------------------- lines


def test_elsewhere_than_on_a_terminal_each_finished_run_is_one_plain_line(jobs):
    console = plain()
    with StudyDisplay(jobs, console):
        finish(jobs[1], 0.123456)
        wait_for(console, "run 1 of 3")
        note(jobs[0], 5, 10)
        finish(jobs[0], 1.0)
        wait_for(console, "run 2 of 3")
        fail(jobs[2], "FloatingPointError: the loss is nan at step 7: lower optim.lr or optim.values.lr")
    lines = console.file.getvalue().splitlines()
    assert [line.partition("  about")[0].rstrip() for line in lines] == [
        "run 1 of 3  memory seed 0  recall 0.123  12 s",
        "run 2 of 3  dense seed 0  recall 1.000  12 s",
        "run 3 of 3  memory seed 1  failed: FloatingPointError: the loss is nan at step 7: lower optim.lr or "
        "optim.values.lr",
    ]
    assert "\x1b" not in console.file.getvalue()


def test_runs_are_named_by_what_differs_within_their_arm():
    sweep = jobs_of(["arm=dense,memory", "optim.lr=1e-3,2e-3", "seed=0,1", "logger=none"], True)
    assert labels(sweep)[:2] == ["dense seed 0 optim.lr=0.001", "dense seed 1 optim.lr=0.001"]
    assert labels(sweep)[-1] == "memory seed 1 optim.lr=0.002" and len(set(labels(sweep))) == len(sweep) == 8
    mixed = jobs_of(["arm=memory", "ffn@match.reference=dense,memory", "seed=0"], True)
    assert labels(mixed) == [f"memory seed 0 ffn@match.reference={name}" for name in ("dense", "memory")]
    worlds = jobs_of(["world=atlas_readings,biographies", "seed=0"], True)
    assert labels(worlds) == ["memory seed 0 atlas_readings", "memory seed 0 biographies"]


def test_a_run_that_ends_with_the_study_is_shown_too(jobs):
    """Between the last look and the end: leaving the display looks once more, and tells no run twice."""
    console = plain()
    with StudyDisplay(jobs, console):
        for job in jobs:
            finish(job)
    assert [line[:10] for line in console.file.getvalue().splitlines()] == ["run 1 of 3", "run 2 of 3", "run 3 of 3"]


def test_what_an_error_says_is_printed_as_it_is(jobs):
    error = "ValueError: model.blocks=[all, [/red] [bold]: no [/blue] :smile:"
    for console in (plain(), terminal()):
        with StudyDisplay(jobs, console):
            fail(jobs[0], error)
            wait_for(console, "run 1 of 3")
        assert f"run 1 of 3  dense seed 0  failed: {error}" in printed(console)
        record_path(jobs[0]).unlink()


def test_a_run_whose_model_is_still_to_be_made_is_not_finished_before(jobs):
    old = time.time() - 60
    for job in jobs:
        finish(job)
        os.utime(record_path(job), (old, old))
    jobs[2].save_model = True
    console = plain()
    with StudyDisplay(jobs, console):
        wait_for(console, "2 of 3 runs are finished already")
        finish(jobs[2])
        wait_for(console, "run 3 of 3  memory seed 1")


def test_runs_that_were_finished_before_are_counted_and_not_shown(jobs):
    finish(jobs[0])
    console = plain()
    with StudyDisplay(jobs, console):
        finish(jobs[1])
        wait_for(console, "run 2 of 3")
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "1 of 3 runs are finished already" and len(lines) == 2
    assert lines[1].startswith("run 2 of 3  memory seed 0")


def test_a_failure_of_an_earlier_attempt_is_not_shown_until_the_run_ends_again(jobs):
    fail(jobs[0], "old", age=3_600.0)
    console = plain()
    with StudyDisplay(jobs, console):
        finish(jobs[1])
        wait_for(console, "run 1 of 3")
        fail(jobs[0], "new")
        wait_for(console, "run 2 of 3")
    text = console.file.getvalue()
    assert "old" not in text and "finished already" not in text
    assert "run 1 of 3  memory seed 0" in text and "run 2 of 3  dense seed 0  failed: new" in text


def test_a_study_that_is_stopped_by_an_error_ends_its_display(jobs):
    console = plain()
    shown = StudyDisplay(jobs, console)
    with pytest.raises(KeyboardInterrupt), shown:
        finish(jobs[0])
        raise KeyboardInterrupt
    assert not shown.thread.is_alive() and "run 1 of 3" in console.file.getvalue()


# --------------------------------------------------------------------------- the live table


def test_on_a_terminal_the_number_of_the_run_is_live(jobs):
    console = terminal()
    with StudyDisplay(jobs, console):
        wait_for(console, "run 1 of 3")
        note(jobs[0], 25, 100, loss=1.5, recall=0.25)
        wait_for(console, "25/100")
        finish(jobs[0], 0.75)
        wait_for(console, "dense seed 0  recall 0.750  12 s")
        wait_for(console, "run 2 of 3")
    assert "\x1b[" in console.file.getvalue() and "recall so far" in printed(console)


def test_the_table_shows_runs_under_way_and_nothing_of_others(jobs):
    shown = StudyDisplay(jobs, plain())
    assert rendered(shown)[0] == "run 1 of 3" and len(rendered(shown)) == 2
    note(jobs[0], 25, 100, loss=1.5, recall=0.25)
    note(jobs[2], 3, 100)
    _, head, first, second = rendered(shown)
    assert head.split() == ["run", "progress", "step", "loss", "recall", "so", "far"]
    assert first.startswith("dense seed 0 ") and first.split()[-3:] == ["25/100", "1.500", "0.250"]
    assert second.startswith("memory seed 1 ") and second.split()[-1] == "3/100"
    finish(jobs[0])
    shown = StudyDisplay(jobs, plain())
    assert rendered(shown)[0].startswith("run 2 of 3") and len(rendered(shown)) == 3
    for job in jobs:
        finish(job)
    assert rendered(StudyDisplay(jobs, plain()))[0].startswith("run 3 of 3")


@pytest.mark.parametrize(
    ("began", "done", "steps", "share", "wanted"),
    [
        (100.0, 0, (0, 0, 0), 0.0, ""),
        (100.0, 0, (6, 0, 0), 0.02, ""),
        (100.0, 0, (100, 50, 0), 0.5, "about 2 min left"),
        (10.0, 0, (100, 50, 0), 0.5, "about 10 s left"),
        (100.0, 1, (0, 100, 0), 0.5, "about 2 min left"),
        (3_000.0, 2, (0, 0, 20), 0.2, "about 200 min left"),
    ],
)
def test_the_time_left_follows_from_the_share_of_this_call(jobs, began, done, steps, share, wanted):
    """Runs of earlier calls are neither work that is done nor work to do."""
    for job in jobs[:done]:
        finish(job)
    shown = StudyDisplay(jobs, plain())
    for job, step in zip(jobs, steps, strict=True):
        if step:
            note(job, step, 100)
    shown.began = time.time() - began
    assert shown.share_done() == pytest.approx(share) and shown.time_left() == wanted


def test_a_run_of_more_flops_is_more_of_the_work(tmp_path):
    """Of one exposure, of four at once the cost, and of one at four times the cost: 1, 4 and 4 parts of 9."""
    words = [["training.exposures=1"], ["training.exposures=4"], ["training.exposures=1", "arm=dense_4x"]]
    jobs = [job for own in words for job in jobs_of(["experiment=frontier", "seed=0", "arm=dense", *own], False)]
    for job in jobs:
        job.results = str(tmp_path)
    shown = StudyDisplay(jobs, plain())
    assert shown.share_done() == 0
    for job, wanted in zip(jobs, (1 / 9, 5 / 9, 1), strict=True):
        finish(job)
        shown.shown.add(record_path(job))
        assert shown.share_done() == pytest.approx(wanted)


def test_a_note_that_is_missing_or_half_written_is_none(tmp_path):
    record = tmp_path / "memory-s0-x.json"
    assert read_partial(record) is None
    for content in ("", "{", "[1]"):
        partial_path(record).write_text(content)
        assert read_partial(record) is None
    partial_path(record).write_text('{"step": 1}')
    assert read_partial(record) == {"step": 1} and partial_path(record) != record
