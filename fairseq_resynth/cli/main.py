"""`resynth VERB`: finds the verb's module, parses its arguments, turns mistakes into one sentence."""

import argparse
import gc
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fairseq_resynth.cli.common import Options

# Group -> its line of help and its verbs; verb -> one line of help. The module of a verb is
# fairseq_resynth.cli.<verb with underscores>, with add_arguments(add) and run(args) -> exit status. The
# table stands here so that `resynth --help` imports none of them.
GROUPS: dict[str, tuple[str, dict[str, str]]] = {
    "prepare": (
        "from recordings to a data directory of units, pitch codes and speakers",
        {
            "preprocess": "convert any audio to 16 kHz mono files",
            "manifest": "split prepared audio into train, valid and test, with speaker names",
            "parse-codes": "turn units that were made elsewhere into a data directory",
            "kmeans": "fit the k-means whose clusters are the content units",
            "quantize": "write the content units of every utterance",
            "f0": "extract F0 of whole utterances, and its mean and standard deviation per speaker",
            "quantize-f0": "write the pitch codes of a trained F0 quantizer",
            "speakers": "write a speaker vector for every utterance, and the mean of each speaker",
            "bpe": "shorten units for a language model, without loss",
            "pack": "put a data directory into memory-mapped files, for training at scale",
            "merge": "join the parts that --shard left",
        },
    ),
    "train": (
        "with fairseq-train or fairseq-hydra-train; then publish the model as a bundle",
        {
            "user-dir": "print the folder to give to fairseq's --user-dir",
            "export": "publish a trained system as a bundle, or in another project's format",
            "import": "convert a checkpoint of speech-resynthesis or a code HiFi-GAN to a bundle",
        },
    ),
    "speak": (
        "from units or recordings to speech, in their own or another voice",
        {
            "synthesize": "speak a test set or a file of units, in its own or other voices",
            "resynthesize": "resynthesize recordings in one command",
            "convert": "change the voice, pitch or rhythm of recordings",
            "live": "convert the microphone to the loudspeaker while somebody speaks",
            "play": "serve a local web page: record, change voice, pitch and rhythm, listen",
        },
    ),
    "compress": (
        "speech at a few hundred bits per second",
        {
            "encode": "compress speech to .rsyn files",
            "decode": "decompress .rsyn files, in any voice of the model",
            "inspect": "show where the bits of a compressed file go",
            "fit-codec": "fit the codec's context model on streams or unit files",
        },
    ),
    "measure": (
        "units, speech and bit rates",
        {
            "evaluate": "measure generated speech against references, and write a report",
            "report": "join several evaluations into one comparison",
            "disentanglement": "measure whether voice, melody, pitch and rhythm change one at a time",
            "listening-test": "make a page for a listening test, and evaluate its results",
            "units-quality": "compare units with a phone alignment: PNMI, purity, codebook use",
            "codec-bench": "measure the bit rate of streams, or rate against distortion",
        },
    ),
}
VERBS = {verb: line for _, verbs in GROUPS.values() for verb, line in verbs.items()}
# Those that reuse what an earlier run of the same command has made, unless they are a stream.
RESUMED = frozenset(
    ("preprocess", "quantize", "f0", "quantize-f0", "speakers", "pack", "merge", "synthesize")
    + ("convert", "encode", "decode", "evaluate")
)
SHELLS = ("bash", "zsh", "tcsh")


def _model_option(value: str) -> str:
    return "--checkpoint" if Path(value).is_file() else "--bundle"


# Spellings of version 0.1, which work until version 0.3 with a warning: the new name, or a function of the
# value that chooses it.
_ENCODER: dict[str, str | Callable[[str], str]] = {"--checkpoint-path": "--content-checkpoint"}
OLD_SPELLINGS: dict[str, dict[str, str | Callable[[str], str]]] = {
    "kmeans": _ENCODER,
    "quantize": _ENCODER,
    "quantize-f0": {"--path": _model_option},
    "synthesize": {
        "--path": _model_option,
        "--speaker": "--target",
        "--speakers": "--targets",
        "--random-speakers": "--random-targets",
    },
    "resynthesize": {"--path": "--bundle", "--source": "--speaker", "--output": "--out"},
    "convert": {"--source": "--speaker"},
    "decode": {"--speaker": "--target"},
    "evaluate": {"--recogniser": "--recognizer", "--enrol": "--enroll"},
}


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and adds the default to the help of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if (
            action.default in (None, False, "", [], argparse.SUPPRESS)
            or "default" in text
            or "%" in text
        ):
            return text
        return f"{text} (default: %(default)s)"


def _module(verb: str):
    return importlib.import_module("fairseq_resynth.cli." + verb.replace("-", "_"))


def _usage() -> str:
    width = max(map(len, VERBS))
    lines = [
        "usage: resynth VERB [options]     resynth VERB --help shows the options of a verb",
        "",
    ]
    for group, (what, verbs) in GROUPS.items():
        lines.append(f"{group}: {what}")
        lines += [f"  {verb:<{width}}  {line}" for verb, line in verbs.items()]
        lines.append("")
    shells = "|".join(SHELLS)
    return "\n".join([*lines, f"resynth --print-completion {shells} prints a shell's completions"])


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The parser of a verb's arguments."""
    module = _module(verb)
    parser = argparse.ArgumentParser(
        prog=f"resynth {verb}", description=module.__doc__, formatter_class=_HelpFormatter
    )
    module.add_arguments(Options(parser))
    return parser


def _print_completion(shell: str) -> int:
    import shtab

    parser = argparse.ArgumentParser(prog="resynth")
    verbs = parser.add_subparsers()
    for verb, line in VERBS.items():
        described = verbs.add_parser(verb, help=line)
        _module(verb).add_arguments(Options(described))
        for action in described._actions:
            if action.choices is None and action.nargs != 0:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=shell))
    return 0


def modernize(verb: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with spellings of version 0.1 replaced; each replacement is warned of on stderr."""
    renamed, result = OLD_SPELLINGS.get(verb, {}), list(arguments)
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name not in renamed:
            continue
        new = renamed[name]
        if not isinstance(new, str):
            new = new(value if equals else "".join(arguments[number + 1 : number + 2]))
        print(
            f"warning: {name} is now {new}; the old name works until version 0.3", file=sys.stderr
        )
        result[number] = new + equals + value
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Returns:
        The exit status: 0 success, 1 finished with files named as failed, 2 a user's mistake, 130
        interrupted, 141 if the reader of the output has gone, as `head` does.
    """
    if arguments is None:
        # The objects of torch live until the end: searching them for garbage only slows the start down.
        gc.set_threshold(100_000)
        arguments = sys.argv[1:]
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may not be in its encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(list(arguments))
    except BrokenPipeError:
        # Python flushes stdout again at its end, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _reason(error: Exception) -> str:
    """The message of an error; those of the system begin with their number otherwise."""
    if not isinstance(error, OSError) or not error.strerror or error.filename is None:
        return str(error)
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{name} is or lies below a file, expected a folder"
    return f"{name}: {error.strerror}"


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), flush=True)
        return 0 if arguments else 2
    verb = arguments[0]
    if verb == "--print-completion" and arguments[1:] in [[shell] for shell in SHELLS]:
        return _print_completion(arguments[1])
    if verb not in VERBS:
        print(f"resynth: error: unknown verb {verb!r}\n{_usage()}", file=sys.stderr)
        return 2
    parsed = parser_of(verb).parse_args(modernize(verb, arguments[1:]))
    try:
        return _module(verb).run(parsed)
    except BrokenPipeError:
        raise
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"resynth {verb}: error: {_reason(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumed = verb in RESUMED and not getattr(parsed, "stream", False)
        rest = "; the same command continues where it stopped" if resumed else ""
        print(f"\nresynth {verb}: interrupted{rest}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
