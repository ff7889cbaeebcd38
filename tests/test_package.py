"""The package away from its checkout: from Python, from a wheel, and with layers of the user's own."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import memlayers
from memlayers.__main__ import VERBS, main
from memlayers.layers.site import Site
from memlayers.studies.compose import jobs_of
from memlayers.studies.files import load_layers
from memlayers.training.plan import plan
from memlayers.training.record import read_record

ROOT = Path(__file__).resolve().parent.parent
LAYER = re.search(r"```python\n(from dataclasses.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
SMALL = ["world=biographies", "world.num_people=60"]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with a layer under a name that no other test uses, and python that finds it only by our doing."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(LAYER[1])
    (tmp_path / f"{name}.yaml").write_text("width: 40\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield tmp_path / f"{name}.py"
    sys.modules.pop(name, None)


def composed(*words):
    return jobs_of(load_layers([*SMALL, *words]), multirun=True)


def test_an_arm_of_two_files_is_matched_and_identified_by_what_is_in_them(mine):
    own, memory, wider = (
        composed(f"arm={mine}")[0],
        composed("arm=memory")[0],
        composed(f"arm={mine}", "model.ffn.width=50")[0],
    )
    assert own.arm == mine.stem and own.model.ffn.width == 40 and wider.model.ffn.width == 50
    reached = [plan(one).matched.reached for one in (own, memory, wider)]
    assert reached[0] == pytest.approx(reached[1], rel=2e-3) and reached[2] == pytest.approx(reached[1], rel=2e-3)
    digests = {memlayers.config.digest.digest(one) for one in (own, memory, wider)}
    mine.write_text(LAYER[1] + "# another layer now\n")
    assert len(digests | {memlayers.config.digest.digest(own)}) == 4


def test_a_file_that_was_edited_is_read_again_in_the_same_process(mine):
    """As in a notebook: else the old layer would run, under the digest of the new file."""
    first, again = composed(f"arm={mine}")[0], composed(f"arm={mine}")[0]
    assert type(first.model.ffn) is type(again.model.ffn), "what did not change stays the same class, for pickles"
    before = output_of(first)
    mine.write_text(
        LAYER[1].replace("self.down(a * b)", "self.down(a * b) * 2.0").replace("class Bilinear:", "class Twice:")
    )
    torch.testing.assert_close(output_of(composed(f"arm={mine}")[0]), 2 * before)


def output_of(job):
    """Of its layer with the same draws."""
    torch.manual_seed(0)
    return job.model.ffn.build(Site(32, 8, 8, kernels=None))(torch.ones(1, 1, 32), None).hidden


def test_it_may_stand_beside_others_in_a_sweep_and_elsewhere_in_a_block(mine):
    jobs = composed(f"arm=dense,{mine},memory", "seed=0,1")
    assert [job.arm for job in jobs] == [arm for arm in ("dense", mine.stem, "memory") for _ in (0, 1)]
    assert composed(f"extra@model.residual={mine}")[0].model.residual.width == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.unlink(), "no file own_.*py there; accepted: a layer's .py, with a .yaml beside it"),
        (lambda path: path.with_suffix(".yaml").unlink(), "no file own_.*yaml there"),
        (lambda path: path.write_text("import nothing_of_that_name"), "cannot be imported .ModuleNotFoundError"),
        (lambda path: path.write_text("x = 1"), "dataclasses with a build method: none; accepted: one"),
        (lambda path: path.with_suffix(".yaml").write_text("widht: 3"), "Key 'widht' not in 'Bilinear'"),
        (lambda path: path.with_suffix(".yaml").write_text("width: wide"), "could not be converted to Integer"),
    ],
)
def test_a_mistake_in_the_two_files_is_one_line(mine, change, said):
    change(mine)
    with pytest.raises(ValueError, match=said) as caught:
        composed(f"arm={mine}")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_taken_is_refused(tmp_path):
    for name in ("memory", "dense_2x"):
        (tmp_path / f"{name}.py").write_text(LAYER[1])
        (tmp_path / f"{name}.yaml").write_text("width: 4\n")
        with pytest.raises(ValueError, match=f"there is an arm {name} already; accepted: a file of another name"):
            composed(f"arm={tmp_path / name}.py")
    (tmp_path / "json.py").write_text(LAYER[1])
    (tmp_path / "json.yaml").write_text("width: 4\n")
    with pytest.raises(ValueError, match="has that name already; accepted: a file of another name"):
        composed(f"arm={tmp_path / 'json.py'}")


def test_from_python_one_run_is_a_record_and_a_mistake_one_line(tmp_path):
    settings = {"arm": "memory", "world": "biographies", "results": str(tmp_path), "progress": "none"}
    record = memlayers.run("training.steps=2", "world.num_people=60", **settings)
    assert record["status"] == "ok" and memlayers.records(tmp_path)["seed"].tolist() == [0]
    assert memlayers.run("training.steps=2", "world.num_people=60", **settings) == record
    assert read_record(Path(record.pop("path"))) == record
    with pytest.raises(ValueError, match=r"^model.widht=3: unknown key"):
        memlayers.run("model.widht=3")
    with pytest.raises(ValueError, match="90 runs; accepted: one"):
        memlayers.run("experiment=frontier")


@pytest.mark.slow
def test_a_wheel_carries_conf_and_runs_in_any_folder(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        str(ROOT),
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    built = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    page = {path.name for path in (tmp_path / "installed/memlayers/studies/page").iterdir()}
    assert page >= {"template.html", "explorer.html", "style.css", "page.js", "explorer.js"}
    words = [*SMALL, "training.steps=2", "progress=none"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-m", "memlayers", "train", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    record = next((tmp_path / "results/local/single/biographies").glob("*.json"))
    assert f'"version": "{memlayers.__version__}"' in record.read_text()
    assert (tmp_path / "installed/memlayers/py.typed").exists()
    verbs = {path.stem for path in (tmp_path / "installed/memlayers/scripts").glob("*.py")}
    assert verbs == set(VERBS)
    shown = [sys.executable, "-m", "memlayers", "report", str(record.parent)]
    done = subprocess.run(shown, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "biographies" in done.stdout, done.stderr


def test_the_command_says_its_verbs_and_refuses_others(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["memlayers"])
    main()
    said = capsys.readouterr().out
    assert all(re.search(rf"^  {verb} +\S", said, re.MULTILINE) for verb in VERBS)
    monkeypatch.setattr(sys, "argv", ["memlayers", "trian"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert capsys.readouterr().err == f"memlayers: trian: no such verb; accepted: {', '.join(VERBS)}\n"
