"""Writes docs/cli.md, the reference of the command line, from the live help: `python docs/make_cli.py`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from seqdens.builtin import BUILTIN
from seqdens.cli import cli, load_command
from seqdens.cli.show import RECIPE, declaration, option_rows, purpose
from seqdens.components import experiment, registry
from seqdens.configuration import COMPONENTS
from seqdens.registry import Provider

os.environ["SEQDENS_PLUGINS"] = ""  # the page is on seqdens alone, whatever is installed here

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 90  # columns of a help text

OPENING = """\
# The command line

<!-- Written by `python docs/make_cli.py`, where the words between the help texts are; do not edit. -->

Everything is a command of `seqdens` (or of `python -m seqdens`), and `seqdens COMMAND --help` shows what stands here.
Installed packages add commands and components: `seqdens list` says what there is.

The exit status is 0 when all went well, 1 when data, files or a package were at fault, 2 when the command was, 130
after Ctrl-C, and 143 after SIGTERM. An error is one line; `--debug` before the command adds the traceback.

| environment variable | effect |
|---|---|
| `SEQDENS_CACHE` | folder for prepared data sets, in place of the user's cache folder; `--cache` goes before it |
| `SEQDENS_STYLES` | folder of the saved styles, in place of the user's data folder |
| `SEQDENS_PLUGINS` | names of installed packages, with commas: all others are left out; empty leaves all out |
| `SEQDENS_LEVEL` | the last [level of instructions](performance.md#processors) that is used, such as avx2 |
| `SEQDENS_STRICT_PLUGINS` | 1: a package that is broken is an error, not a warning |
| `SEQDENS_DEBUG` | 1: as `--debug` |
"""

WORDS = {
    "seqdens run": """\
From data to a trained model and pictures of its samples. An option has the value that `--set` or another flag gives it,
else that of `--config`, of the preset, of the experiment, and at last [its default](#what---set-accepts); another data
set, encoder or head begins with its own defaults.

```
seqdens run handwriting
seqdens run handwriting --dataset iamondb --data DIR --set dataset.lists=LISTS
seqdens run handwriting --set encoder.layers=2 --set training.learning_rate=0.001 --out runs/two
seqdens run handwriting --resume --out runs/two --epochs 20
seqdens run handwriting --config runs/two/config.toml       # the same again, in a new folder
```
""",
    "seqdens prepare": """\
`run` prepares a data set by itself; this does only that, and tells what was read, what was skipped and why, and where
the prepared file is. It takes seconds when nothing has changed.

```
seqdens prepare iamondb --data DIR --set lists=LISTS
```
""",
    "seqdens sample": """\
The ending of `--out` decides what is written: a picture (`.svg`, `.png`), the pen moving (`.gif`), or the points
themselves (`.npz`, `.csv`, `.json`), which `--prime` takes too.

```
seqdens sample runs/handwriting-1 -n 4 --bias 1 --seed 2 --out more.svg
seqdens sample runs/handwriting-1 -n 1 --out pen.gif
```
""",
    "seqdens write": """\
[write.md](write.md) explains what is done with a text, and which option is for what.

```
seqdens write "Dear Anna, thank you." --model runs/synthesis-1 --seed 1
seqdens write --from letter.txt --model runs/synthesis-1 --style anna --paper A5 --out letter.pdf
```
""",
    "seqdens styles": """\
A style is a recorded line of a hand with its text, with which a model is primed. What was recorded elsewhere is brought
into the model's units when it is used: the same size and points a character as its training data, sampled along the
pen's way at the speeds that a pen has. A drawing is of strokes (not of filled outlines), in the order in which they are
written, y down; a line has at most 200 characters.

```
seqdens styles add anna --from hershey:w003-l00101
seqdens styles add me --from me.svg --text "A line in my own hand"
seqdens styles show me --model runs/handwriting --out me.png
```
""",
    "seqdens evaluate": """\
A column for each model, a row for each measure; [what the loss means](what-the-loss-means.md) explains them.
`--dataset` and `--data` say which data to take, where the model has lost its run folder or others are wanted.

```
seqdens evaluate runs/handwriting-1 --static
seqdens evaluate runs/handwriting-1 runs/two --split test --json
```
""",
    "seqdens plot": """\
Pictures of what a model predicts for a record that is given to it, of where in a text it is while it writes, and of how
its loss fell.

```
seqdens plot density runs/handwriting-1
seqdens plot mixture runs/handwriting-1 --steps 200 --out weights.svg
seqdens plot window runs/synthesis-1 --text "come to the sea"
```
""",
    "seqdens export": """\
A program that has the file and an ONNX runtime draws what `seqdens sample` does, without seqdens and torch;
[library.md](library.md#compile-and-export) says what goes in and what comes out. To write it takes
`pip install "seqdens[onnx]"`.

```
seqdens export runs/handwriting-1 --bias 1 --out step.onnx
```
""",
    "seqdens show": """\
```
seqdens show stacked-lstm       # an encoder's options
seqdens show training           # the trainer's
seqdens show handwriting        # an experiment with its presets, as TOML
```
""",
    "seqdens new-plugin": """\
A data set, an encoder, a head, an experiment or a listener of one's own begins as a copy of one that works;
[write-a-plugin.md](write-a-plugin.md) goes on from there.

```
seqdens new-plugin ink --with dataset,experiment
```
""",
}

OPTIONS = """\
## What `--set` accepts

`--set PART.OPTION=VALUE`, with a value as in TOML (`3`, `1e-3`, `true`, `["time", "pressure"]`); text needs no quotes.
A preset may set an option to something else than its default. `seqdens show NAME` gives the same for one
component, and for those of installed packages.
"""

EXPERIMENTS = """\
## Experiments

An experiment names components and what they are set to; `--preset` chooses among its presets. Without it `own_preset`
holds for the experiment's own data set, and `preset` for any other.
"""


def page() -> str:
    """The whole of docs/cli.md, as text."""
    top = click.Context(cli, info_name="seqdens", terminal_width=WIDTH)
    parts = [OPENING, *command_section(cli, top)]
    for name in BUILTIN["commands"]:
        parts += command_section(load_command(name), top, name)
    parts += [OPTIONS, *(option_section(part, provider) for part, provider in parts_of_a_run())]
    parts += [EXPERIMENTS, *(experiment_section(name) for name in BUILTIN["experiments"])]
    return "\n".join(parts)


def command_section(command: click.Command, parent: click.Context, name: str = "") -> Iterator[str]:
    """Heading, words and help of a command, then of its subcommands."""
    context = click.Context(command, parent=parent, info_name=name) if name else parent
    level = "##" if context.parent is None or context.parent.parent is None else "###"
    yield f"{level} {context.command_path}\n"
    if context.command_path in WORDS:
        yield WORDS[context.command_path]
    yield f"```text\n{command.get_help(context)}\n```\n"
    if name and isinstance(command, click.Group):
        for each, subcommand in command.commands.items():
            yield from command_section(subcommand, context, each)


def parts_of_a_run() -> list[tuple[str, Provider]]:
    """Each part of a configuration with a component that it may hold."""
    components = [(part, registry(f"{part}s").provider(name)) for part in COMPONENTS for name in BUILTIN[f"{part}s"]]
    return components + [(provider.name, provider) for provider in RECIPE]


def option_section(part: str, provider: Provider) -> str:
    """Purpose and options of a component as a table."""
    rows = [("`--set`", "type", "default", ""), ("---",) * 4]
    for name, kind, default, text in option_rows(provider):
        rows.append((f"`{part}.{name}`", code(kind), code(default), text))
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    title = provider.name if part == provider.name else f"{part} {provider.name}"
    return f"### {title}\n\n{purpose(provider.load())}\n\n{table}\n"


def code(text: str) -> str:
    """`text` as code in a table, where a bar ends the cell."""
    return "`" + text.replace("|", "\\|") + "`"


def experiment_section(name: str) -> str:
    return f"### {name}\n\n```toml\n{declaration(experiment(name))}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
