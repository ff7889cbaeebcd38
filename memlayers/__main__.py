"""The command `memlayers`, also python -m memlayers: its verbs are the scripts, which a wheel includes."""

import ast
import runpy
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
SCRIPTS = PACKAGE / "scripts" if (PACKAGE / "scripts").is_dir() else PACKAGE.parent / "scripts"
VERBS = ("train", "report", "ask", "trace", "finetune", "export", "show_world", "show_cost", "tune")


def main() -> None:
    """`memlayers train arm=memory` runs `python scripts/train.py arm=memory`; without a verb, lists all."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print("usage: memlayers VERB ...\n")
        for name in VERBS:
            about = ast.get_docstring(ast.parse((SCRIPTS / f"{name}.py").read_text())) or ""
            print(f"  {name:12}{about.splitlines()[0]}")
        return
    if verb not in VERBS:
        print(f"memlayers: {verb}: no such verb; accepted: {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    sys.argv[:2] = [f"memlayers {verb}"]
    sys.path.insert(0, str(SCRIPTS))  # for modules beside a script
    runpy.run_path(str(SCRIPTS / f"{verb}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
