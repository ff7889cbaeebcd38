"""Tables of what was tried, against hand-made records."""

from memlayers.studies.tried import tried_tables
from tests.test_studies import cells
from tests.test_table import fake_record


def run(arm: str, seed: int, recall: float, **settings) -> dict:
    return fake_record(arm, seed, recall) | {"config": {"optim": {"clip": 1.0, "lr": 0.01} | settings}}


def test_each_change_stands_beside_the_defaults_with_its_setting_and_gain():
    studies = {
        "tried_nothing": {
            "w": [run("dense", 0, 0.2), run("dense", 1, 0.4), run("memory", 0, 0.5), run("memory", 1, 0.7)]
        },
        "tried_low_clip": {"w": [run("dense", 1, 0.5, clip=0.3), run("memory", 2, 0.9, clip=0.3)]},
        "tried_noise": {"w": [run("memory", 0, 0.25), run("memory", 1, 0.25)], "v": [run("memory", 0, 0.125)]},
        "tries": {"w": [run("dense", 0, 0.9)]},
    }
    found = tried_tables(studies, "tried")
    assert cells(found.split("w:")[1])[0] == ["tried", "setting", "dense", "memory"]
    assert cells(found.split("w:")[1])[2:] == [
        ["nothing", "", "0.300, n = 2", "0.600, n = 2"],
        ["low_clip", "`optim.clip=0.3`", "0.500 (+0.100), n = 1", "0.900, n = 1"],  # no seed shared with the defaults
        ["noise", "patch", "-", "0.250 (-0.350 ± 1.271), n = 2"],
    ]
    assert found.startswith("v:") and cells(found.split("w:")[0])[2:] == [["noise", "?", "0.125, n = 1"]]


def test_a_setting_that_one_side_does_not_have_is_a_change_too():
    with_muon = run("dense", 0, 0.5, muon_lr=0.02)
    studies = {"tried_nothing": {"w": [run("dense", 0, 0.25)]}, "tried_muon": {"w": [with_muon]}}
    assert cells(tried_tables(studies, "tried"))[3] == ["muon", "`optim.muon_lr=0.02`", "0.500 (+0.250), n = 1"]
