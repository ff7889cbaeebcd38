"""Several processes at one run: what one process computes, whatever their number, sharded or not, stopped or not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import GATED, called, one, refusal, small

import memlayers
from memlayers.recall.ask import ask, sample_facts
from memlayers.training.checkpoint import step_kept
from memlayers.training.record import model_path, read_record, record_path
from memlayers.training.run import run

WORKER = Path(__file__).parent / "ranks_worker.py"
pytestmark = pytest.mark.slow  # each starts processes


def torchrun(processes: int, *words: object, script: Path = WORKER, expect: int = 0) -> str:
    """What a group of processes says."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*command, str(script), *map(str, words)], capture_output=True, text=True, timeout=600)
    assert bool(done.returncode) == bool(expect), done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_sharded_table_is_the_whole_one(processes):
    torchrun(processes, "layer", "clip", "steps")


def test_three_processes_agree_and_send_what_is_predicted():
    torchrun(3, "ranks", "batch", "wire")


def curve(record: dict[str, Any] | None) -> list[float]:
    assert record is not None and record["status"] == "ok", record
    points = record["training"]["curve"]
    return [*(point["surprise"] for point in points), *(point["loss"] for point in points)]


def of(folder: Path, words: str) -> dict[str, Any] | None:
    return read_record(record_path(small(folder, *words.split())))


DDP = "trainer=ddp training.steps=12 "
KINDS = [
    "ffn=dense",
    "ffn=memory",
    "ffn=memory shard_tables=true",
    "ffn=memory values=lazy_adam shard_tables=true",
    "ffn=memory values=sgd optim.clip_values=1e-4 shard_tables=true",
    "ffn=memory values=adamw optim.clip_values=1e-4 shard_tables=true",
    "ffn=memory values=adamw",
    "ffn=peer shard_tables=true",
    f"{GATED} shard_tables=true",
    "ffn=stem shard_tables=true",
    "ffn=ngram",  # does not look at what the norm before it makes
    "ffn=pkm training.batch_tokens=41 shard_tables=true",
    "ffn=moe model.ffn.balance_loss=1 model.ffn.balance_step=0.1 training.batch_tokens=41",
    "ffn=dense extra@model.residual=engram model.residual.hashes=2 optim.values.lr=0.5 shard_tables=true",
    "ffn=memory model.ffn.pool=shared model.blocks=[0,1] shard_tables=true",
    "ffn=memory training.batch_tokens=41",  # of documents, one process has fewer
]
RESUMED = ["ffn=memory", "ffn=memory shard_tables=true", "ffn=memory values=lazy_adam shard_tables=true"]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """Where the records of two processes at each kind of run are."""
    folder = tmp_path_factory.mktemp("two")
    torchrun(2, "train", folder, 0, *(DDP + words for words in KINDS))
    return folder


def by_one(folder: Path, words: str) -> dict[str, Any]:
    return run(small(folder, "training.steps=12", *words.replace("shard_tables=true", "").split()))


@pytest.mark.parametrize("words", KINDS)
def test_two_processes_have_the_curve_of_one(words, of_two, tmp_path):
    expected, found = by_one(tmp_path, words), of(of_two, DDP + words)
    assert curve(found) == pytest.approx(curve(expected), rel=2e-4)
    assert found["machine"]["processes"] == 2
    assert found["cost"] == expected["cost"]


def test_runs_that_four_processes_began_go_on_with_two(tmp_path):
    """The last of the four is asked to stop; all stop at that step."""
    commands = [f"{DDP} checkpoint_minutes=5 {words}" for words in RESUMED]
    said = torchrun(4, "train", tmp_path / "some", 7, *commands)
    assert said.count("stopped by 15") == 4 * len(RESUMED)
    kept = [step_kept(small(tmp_path / "some", *words.split())) for words in commands]
    assert kept == [7] * len(RESUMED)
    assert [path.name for path in tmp_path.rglob("*.tables/*")] == ["7", "7"]
    torchrun(2, "train", tmp_path / "some", 0, *commands)
    for words, command in zip(RESUMED, commands, strict=True):
        expected = by_one(tmp_path / "one", words)
        assert curve(of(tmp_path / "some", command)) == pytest.approx(curve(expected), rel=2e-4)
    assert not [*tmp_path.rglob("*.tables"), *tmp_path.rglob("*.ckpt*")], "a run that is done leaves its record alone"


def test_a_damaged_shard_is_told_and_the_run_begins_again(tmp_path):
    words = f"{DDP} checkpoint_minutes=5 shard_tables=true"
    torchrun(2, "train", tmp_path, 7, words)
    (shard, *_) = sorted(tmp_path.rglob("*.tables/7/*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    said = torchrun(2, "train", tmp_path, 0, words)
    assert said.count("damaged (checksum of") == 1 and "the run begins again" in said
    assert of(tmp_path, words)["training"]["curve"][0]["step"] == 4


def test_a_study_under_torchrun_writes_each_record_once(tmp_path):
    train = Path(__file__).parent.parent / "scripts" / "train.py"
    words = ["trainer=ddp", "-m", "seed=0,1", f"results={tmp_path}", "world.num_subjects=300", "training.steps=3"]
    said = torchrun(2, *words, "logger=none", "training.batch_tokens=128", script=train)
    assert said.count("2 of 2 runs are finished") == 1
    assert len([*tmp_path.rglob("*-s?-*.json")]) == 2


@pytest.mark.parametrize(
    ("processes", "words", "line"),
    [
        (2, ["seed=0"], "trainer.strategy=auto: 2 processes at one run; accepted: trainer=ddp"),
        (2, ["trainer=ddp", "-m", "seed=0,1", "hydra/launcher=joblib"], "accepted: hydra/launcher=basic"),
        (3, ["trainer=ddp", "shard_tables=true"], "cannot be cut into columns for 3 processes; accepted:"),
    ],
)
def test_mistakes_are_told_once(processes, words, line, tmp_path):
    train = Path(__file__).parent.parent / "scripts" / "train.py"
    small_run = ["training.steps=2", "world.num_subjects=300", "logger=none", f"results={tmp_path}"]
    said = torchrun(processes, *words, *small_run, script=train, expect=1)
    assert said.count(line) == 1 and "memlayers/" not in said.replace(f"{tmp_path}", "").replace(f"{train}", "")


def test_ddp_without_torchrun_is_refused_with_the_command(tmp_path):
    done = called("train.py", "trainer=ddp", "training.steps=2", f"results={tmp_path}")
    command = "torchrun --standalone --nproc-per-node=2 scripts/train.py trainer=ddp"
    assert done.returncode != 0 and f"accepted: {command}" in done.stderr
    assert "Traceback" not in done.stderr


KEPT = [
    "ffn=memory",
    "ffn=memory shard_tables=true",
    "ffn=pkm model.ffn.value_dtype=bfloat16 shard_tables=true",
    "ffn=memory model.ffn.pool=shared model.blocks=[0,1] shard_tables=true",
]


def test_models_are_kept_once_and_answer_one_process_as_they_did_two(tmp_path):
    commands = [f"trainer=ddp training.steps=4 save_model=true {words}" for words in KEPT]
    torchrun(2, "train", tmp_path, 0, *commands)
    assert not [*tmp_path.rglob("*.tmp")] and len([*tmp_path.rglob("*.safetensors")]) == len(KEPT)
    for words in commands:
        record, kept = of(tmp_path, words), memlayers.load(model_path(small(tmp_path, *words.split())))
        whole = sum(pool.values.numel() for pool in kept.model.tables())
        assert whole == record["cost"]["params_in_pools"]
        facts = sample_facts(kept.text.world, record["config"]["training"]["max_probed_facts"])
        surprise = ask(kept.model, kept.text, facts, "training").surprise.mean().item()
        assert surprise == pytest.approx(record["training"]["curve"][-1]["surprise"], rel=1e-5), words


def test_a_model_that_cannot_be_written_is_told_and_nobody_waits(tmp_path):
    words = "trainer=ddp training.steps=2 save_model=true shard_tables=true"
    scratch = model_path(small(tmp_path, *words.split())).with_suffix(".safetensors.tmp")
    scratch.parent.mkdir(parents=True)
    scratch.symlink_to("/dev/full")
    said = torchrun(2, "train", tmp_path, 0, words, expect=1)
    assert "ValueError: save_model=true: " in said and "No space left" in said
    assert not [*tmp_path.rglob("*.tmp"), *tmp_path.rglob("*.safetensors")]


def test_settings_that_do_not_go_together_are_refused():
    assert "accepted: with trainer=ddp" in refusal("shard_tables=true")
    assert "accepted: auto" in refusal("trainer=ddp", "trainer.devices=2")
    assert one("trainer=ddp", "shard_tables=true").shard_tables
