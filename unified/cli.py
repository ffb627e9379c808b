"""The command `unified`: draw, answer and edit from a shell.

Arguments are read before anything heavy is imported, so `--help` and mistakes answer at once.
"""

import argparse
import io
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unified import __version__, output
from unified.status import Status

EXAMPLES = """\
examples:
  unified generate "two red apples left of a dog" -o out.png
  unified answer picture.png "how many apples are there?"
  unified edit picture.png "make the apple green" -o edited.png
  unified generate "a yellow star" --checkpoint runs/quick --seed 7

`unified COMMAND --help` lists the options of a command. Without --checkpoint the model that ships
with the package is used."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status: 0, or 1 for a mistake, which is told in a line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        status = Status("unified", sys.stderr)
        args = parser().parse_args(argv)
        status = Status(f"unified {args.command}", sys.stderr)
        outcome = _aside(lambda: _run(args, status))
        if isinstance(outcome, str):
            status.close_line()
            print(outcome, flush=True)
            return 0
        if (told := _mistake(outcome)) is None:
            raise outcome
        status.fail(told)
        return 1
    except OSError as error:
        status.fail(f"the result cannot be printed: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        status.fail("interrupted", kind="")
        os._exit(130)  # at once: what compiles in the other thread cannot be told to end
    finally:
        _flush()


def _aside(work: Callable[[], Any]) -> Any:
    """`work()` in a thread, its exception included: compiling takes long and hears no Ctrl-C."""

    def caught() -> Any:
        try:
            return work()
        except BaseException as error:
            return error

    outcome: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(caught()), daemon=True).start()
    return outcome.get()


def _run(args: argparse.Namespace, status: Status) -> str:
    """What the command has to print."""
    if args.picture is not None:
        _check_picture(args.picture)
    if args.output is not None:
        output.check(args.output)
    with status:
        status.phase("loading the model")
        # A command runs a program once: at level 1 it compiles in 4/5 of the time and is as fast.
        os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")
        from unified import devices, inference  # imports JAX

        devices.find()
        model = inference.load(args.checkpoint, keep_compiled=True, trust=args.trust)
        if isinstance(model, inference.PictureTokenizer):
            raise ValueError(
                f"{args.checkpoint!r}: a tokenizer of pictures neither answers nor draws"
            )
        return args.run(model, args)


def _check_picture(name: str) -> None:
    """Raises OSError or ValueError for what is no file, before the model is loaded."""
    if name.startswith(("gs://", "s3://")):
        return
    if "://" in name:
        raise ValueError(f"{name}: nothing is fetched from the network: give a file")
    if not os.path.exists(name):
        raise FileNotFoundError(f"no picture at {name}")
    if not os.path.isfile(name):
        raise ValueError(f"{name} is not a file")


def _mistake(error: BaseException) -> str | None:
    """What to tell the user; None of what is a fault of this library."""
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "the memory of this machine is too small: ask for less (--max-tokens, --candidates)"
    return str(error) if isinstance(error, OSError | ValueError | ArithmeticError) else None


def _flush() -> None:
    """Gives up what standard output does not take, or Python reports it once more at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def generate(assistant: Any, args: argparse.Namespace) -> str:
    options = _given(args, DRAWING)
    if _on_cpu():  # as many as the model has elsewhere, where they cost little
        options.setdefault("candidates", 1)
    [picture] = assistant.generate([args.prompt], seeds=args.seed, **options)
    return output.write(picture, args.output)


def edit(assistant: Any, args: argparse.Namespace) -> str:
    options = _given(args, DRAWING)
    [picture] = assistant.edit([args.picture], [args.instruction], seeds=args.seed, **options)
    return output.write(picture, args.output)


def answer(assistant: Any, args: argparse.Namespace) -> str:
    options = _given(args, WRITING)
    [text] = assistant.answer([(args.picture, args.question)], seeds=args.seed, **options)
    return text


def _on_cpu() -> bool:
    import jax

    return jax.default_backend() == "cpu"


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str):
        Status(self.prog, sys.stderr).fail(f"{message} (see {self.prog} --help)")
        raise SystemExit(2)


def parser() -> Parser:
    top = Parser(
        prog="unified",
        description="One network that reads and generates text and pictures.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"unified {__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )

    command = _command(commands, generate, "draw a picture from a prompt")
    command.add_argument("prompt", help="what to draw")
    _add_drawing(command, "generated.png", set(DRAWING) - {"image_scale"})

    command = _command(commands, answer, "answer a question about a picture")
    command.add_argument("picture", help="a picture file")
    command.add_argument("question", nargs="?", default="describe the picture", help=_DEFAULT)
    _add_writing(command)

    command = _command(commands, edit, "change a picture as an instruction says")
    command.add_argument("picture", help="a picture file")
    command.add_argument("instruction", help="what to change")
    _add_drawing(command, "edited.png", set(DRAWING) - {"candidates"})
    return top


_DEFAULT = "default: %(default)s"
DRAWING = {  # type, meaning, and default of a model whose config does not say
    "steps": (int, "points of time; more are slower and finer", 30),
    "shift": (float, "more than 1 spends more steps near noise", 3.0),
    "text_scale": (float, "guidance towards the text; 1 turns it off", 4.0),
    "image_scale": (float, "guidance towards the picture given; 1 turns it off", 1.5),
    "interval": (
        float,
        "times LO < t <= HI at which guidance acts; 1 is noise, 0 the picture",
        (0.0, 1.0),
    ),
    "renorm": (str, "what keeps guided velocities from growing", "global"),
    "renorm_min": (float, "the least factor by which it may scale them down", 0.0),
    "temperature": (float, "of models that draw codes: 0 takes the likeliest, 1 as trained", 1.0),
    "top_k": (int, "of those: draw among so many likeliest codes; 0 for all", 0),
    "top_p": (float, "of those: among the likeliest that make up this probability", 1.0),
    "candidates": (int, "pictures drawn, to keep the one that the model reads best; on a CPU 1", 1),
}
WRITING = {
    "max_tokens": (int, "longest answer", 64),
    "temperature": (float, "0 takes the likeliest token; 1 draws as trained", 0.0),
    "top_k": (int, "draw among so many likeliest tokens; 0 for all", 0),
    "top_p": (float, "draw among the likeliest tokens that make up this probability", 1.0),
    "stop": (str, "end the answer before this text; may be given several times", ()),
}
SHIPPED = Path(__file__).parent / "checkpoints" / "emoji" / "config.json"


def _shipped() -> dict[str, Any]:
    """How the model that ships draws, as far as its config says."""
    return json.loads(SHIPPED.read_text()).get("drawing", {}) if SHIPPED.exists() else {}


def _command(commands, run, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        run.__name__, help=summary, description=summary.capitalize() + "."
    )
    command.set_defaults(run=run, output=None, picture=None)
    command.add_argument(
        "--checkpoint", metavar="DIR", help="a release, or a run of train.py (default: as shipped)"
    )
    command.add_argument(
        "--trust", action="store_true", help="run the code that the config of --checkpoint names"
    )
    command.add_argument(
        "--seed",
        type=int,
        default=0,
        help=f"the same seed gives the same result, up to the rounding of the machine, and of a "
        f"batch where Python asks for several at once ({_DEFAULT})",
    )
    return command


def _add_drawing(command: argparse.ArgumentParser, output: str, names: set[str]) -> None:
    command.add_argument(
        "-o",
        "--output",
        default=output,
        help=f"file to write, over one that is there ({_DEFAULT})",
    )
    group = command.add_argument_group(
        "drawing", "Defaults are those of the model; shown are those of the one that ships."
    )
    shape: dict[str, dict[str, Any]] = {
        "interval": {"nargs": 2, "metavar": ("LO", "HI")},
        "renorm": {"choices": ("none", "global", "channel", "text_channel")},
    }
    _add(group, {name: DRAWING[name] for name in DRAWING if name in names}, shape, _shipped())


def _add_writing(command: argparse.ArgumentParser) -> None:
    shape = {"stop": {"action": "append", "metavar": "TEXT"}}
    _add(command.add_argument_group("writing"), WRITING, shape, {})


def _add(
    group,
    options: dict[str, tuple[type, str, Any]],
    shape: dict[str, dict[str, Any]],
    defaults: dict[str, Any],
) -> None:
    """Options that are None where they are not given; `defaults` are shown first."""
    for name, (kind, text, default) in options.items():
        extra = shape.get(name, {"metavar": {int: "N", float: "X"}.get(kind)})
        value = defaults.get(name, default)
        shown = " ".join(map(str, value)) or "none" if isinstance(value, tuple | list) else value
        text = f"{text} (default: {shown})"
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, help=text, **extra)


def _given(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; the others are left to the model."""
    values = {name: getattr(args, name, None) for name in options}
    values = {name: value for name, value in values.items() if value is not None}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


if __name__ == "__main__":
    sys.exit(main())
