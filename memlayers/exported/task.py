"""The facts of a world as tasks of lm-eval (EleutherAI's harness), which score whole objects, as recall.ask does.

memlayers_facts.jsonl    {"subject": "SYD", "relation": "country", "question": "SY YD [country]",
                          "answer": " country:AU"}
memlayers_facts.yaml     output_type: loglikelihood, whose acc is 1 where each token of the answer is the model's first
                         choice after those before it, among all tokens: our `exact`. A multiple choice among the
                         relation's objects would be an easier question than ours.
memlayers_facts.py       reads the file for lm-eval, and registers our models with transformers
"""

import json
from typing import Any

import torch

from memlayers.documents import Probe
from memlayers.facts.world import PAD
from memlayers.recall.ask import sample_facts
from memlayers.recall.measure import MAX_FACTS
from memlayers.trained import Trained

TASK = """\
task: {name}
custom_dataset: !function memlayers_facts.load
dataset_kwargs:
  file: {name}.jsonl
test_split: test
output_type: loglikelihood
doc_to_text: question
doc_to_target: answer
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
READER = '''\
"""The questions for lm-eval. The import of memlayers.exported makes its models known to transformers."""

import json
from pathlib import Path

import datasets
import memlayers.exported  # noqa: F401


def load(file, **_):
    with open(Path(__file__).with_name(file), encoding="utf-8") as lines:
        return {"test": datasets.Dataset.from_list([json.loads(line) for line in lines])}
'''
TASKS = {"memlayers_facts": "training", "memlayers_facts_held_out": "held_out"}  # name -> phrasing


def tasks_of(trained: Trained, tokenizer: Any) -> dict[str, str]:
    """The task files, as file name -> content. Facts, order and templates are those of a record's measurements.

    Raises ValueError, in one line, for a question whose text the tokenizer would read as other tokens.
    """
    text, files = trained.text, {"memlayers_facts.py": READER}
    for name, phrasing in TASKS.items():
        facts = sample_facts(text.world, MAX_FACTS)
        probe = text.probe(facts, phrasing, torch.Generator().manual_seed(0))
        if len(probe.subject):
            lines = [
                json.dumps(question, ensure_ascii=False) + "\n" for question in questions(trained, probe, tokenizer)
            ]
            files |= {f"{name}.yaml": TASK.format(name=name), f"{name}.jsonl": "".join(lines)}
    return files


def questions(trained: Trained, probe: Probe, tokenizer: Any) -> list[dict[str, str]]:
    """The lines of a task file, one for each question."""
    names, world = list(trained.subjects), trained.text.world
    ids, cut = [], []
    for row, answer in zip(probe.documents.tokens.tolist(), probe.documents.answers.tolist(), strict=True):
        first = answer.index(True)
        ids.append([token for token in row[: first + sum(answer)] if token != PAD])
        cut.append(first)
    asked = tokenizer.batch_decode([row[:first] for row, first in zip(ids, cut, strict=True)])
    whole = tokenizer.batch_decode(ids)
    for rows, texts in ((ids, whole), ([row[:first] for row, first in zip(ids, cut, strict=True)], asked)):
        for row, told, again in zip(rows, texts, tokenizer(texts)["input_ids"], strict=True):
            if row != again:
                raise ValueError(f"world {world.name}: {told!r:.120} would be read as other tokens than it was made of")
    return [
        {
            "subject": names[subject],
            "relation": world.relations[relation],
            "question": question,
            "answer": told.removeprefix(question),
        }
        for subject, relation, question, told in zip(
            probe.subject.tolist(), probe.relation.tolist(), asked, whole, strict=True
        )
    ]
