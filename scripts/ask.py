"""Ask a model that a run kept (save_model=true): its likeliest answers, with their probabilities.

python scripts/ask.py RUN "JFK" country        one question; RUN is the record of the run, or its .safetensors
python scripts/ask.py RUN                      a prompt: SUBJECT, RELATION; the relation may be left out

Lines of text on its standard input are questions, too.
"""

import argparse
import sys
from pathlib import Path

import memlayers
from memlayers.checks import at_least
from memlayers.studies.cli import fail, verb
from memlayers.studies.files import settings_in
from memlayers.trained import Trained


def answer_lines(model: Trained, subject: str, relation: str, top: int, phrasing: str) -> str:
    """A question and its answers, one a line."""
    reply = model.ask(subject, relation, top, phrasing)
    width = max(map(len, reply.objects))
    lines = [
        f"  {name:{width}}  {probability:.3f}{'  true' if name == reply.truth else ''}"
        for name, probability in zip(reply.objects, reply.probabilities, strict=True)
    ]
    known = "" if reply.told else "  (not in the training facts)"
    missed = (
        f"  {reply.truth:{width}}         true" if reply.truth is not None and reply.truth not in reply.objects else ""
    )
    return "\n".join([f"{subject}, {relation}{known}", *lines, *([missed] if missed else [])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("subject", nargs="?")
    parser.add_argument("relation", nargs="?")
    parser.add_argument("--top", type=int, default=3, help="answers to a question")
    parser.add_argument(
        "--phrasing", default="training", help="training, held_out, questions, held_out_questions; or a kind of view"
    )
    parser.add_argument("--layer", action="append", default=[], metavar="FILE", help="of an arm of your own")
    given = parser.parse_intermixed_args()
    at_least("--top", given.top, 1)
    model = memlayers.load(given.run, tuple(settings_in(Path(file).resolve()) for file in given.layer))
    relations = model.text.world.relations
    if given.subject is not None:
        for relation in [given.relation] if given.relation else relations:
            print(answer_lines(model, given.subject, relation, given.top, given.phrasing))
        return 0
    if sys.stdin.isatty():
        print(f"{len(model.text.world.subjects)} subjects, relations {', '.join(relations)}; Ctrl-D ends")
    wrong = 0
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return 2 if wrong and not sys.stdin.isatty() else 0
        if line:
            subject, _, relation = (part.strip() for part in line.rpartition(",")) if "," in line else (line, "", "")
            try:
                for name in [relation] if relation else relations:
                    print(answer_lines(model, subject, name, given.top, given.phrasing), flush=True)
            except ValueError as error:
                fail(error)
                wrong += 1


if __name__ == "__main__":
    verb(main)
