"""`resynth` itself: groups of verbs, options that mean the same everywhere, old spellings, completion."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fairseq_resynth
from fairseq_resynth.cli import common
from fairseq_resynth.cli.main import (
    GROUPS,
    OLD_SPELLINGS,
    VERBS,
    _reason,
    main,
    modernize,
    parser_of,
)

PARSERS = {verb: parser_of(verb) for verb in VERBS}


def test_help_shows_five_groups_with_every_verb(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert list(GROUPS) == ["prepare", "train", "speak", "compress", "measure"]
    lines = shown.splitlines()
    heads = [lines.index(f"{group}: {what}") for group, (what, _) in GROUPS.items()]
    assert heads == sorted(heads)
    for verb, line in VERBS.items():
        assert f"  {verb} " in shown and line in shown
    files = {path.stem.replace("_", "-") for path in Path(common.__file__).parent.glob("*.py")}
    assert set(VERBS) == files - {"--init--", "main", "common"}


def test_messages_name_only_verbs_that_exist():
    """All texts of the package, also docstrings: `resynth VERB` in backquotes."""
    named = {}
    for path in Path(fairseq_resynth.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= {verb: path for verb in re.findall(r"`resynth ([\w-]+)", node.value)}
    assert {"speakers", "manifest", "quantize-f0"} <= set(named)
    wrong = {verb: path for verb, path in named.items() if verb not in {*VERBS, "VERB"}}
    assert not wrong


def test_help_loads_no_library():
    program = "import sys; from fairseq_resynth.cli.main import main; main(['--help']); "
    program += "print([name for name in ('numpy', 'torch', 'tqdm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_help_text(verb, capsys):
    for action in PARSERS[verb]._actions:
        assert action.help, f"resynth {verb} {action.option_strings or action.dest}"
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0 and f"usage: resynth {verb}" in capsys.readouterr().out


def test_an_option_means_the_same_in_every_verb():
    """One dest per spelling, and no verb keeps a spelling that was renamed."""
    found: dict[str, set[str]] = {}
    for verb, parser in PARSERS.items():
        for action in parser._actions:
            for option in action.option_strings:
                found.setdefault(option, set()).add(action.dest)
        known = {option for action in parser._actions for option in action.option_strings}
        renamed = OLD_SPELLINGS.get(verb, {})
        assert not {old for old in renamed if old in known} - {"--speaker"}, verb
        for new in renamed.values():
            assert new("nowhere") in known if callable(new) else new in known, (verb, new)
    assert {option: names for option, names in found.items() if len(names) > 1} == {}


def test_old_spellings_work_with_a_warning(tmp_path, capsys):
    (tmp_path / "model.pt").write_bytes(b"")
    old = ["--path", str(tmp_path), "--random-speakers", "2", "--speaker=anna"]
    new = ["--bundle", str(tmp_path), "--random-targets", "2", "--target=anna"]
    assert modernize("synthesize", old) == new
    warnings = capsys.readouterr().err.splitlines()
    assert warnings[0] == "warning: --path is now --bundle; the old name works until version 0.3"
    assert len(warnings) == 3
    file = str(tmp_path / "model.pt")
    assert modernize("quantize-f0", ["DATA", f"--path={file}"]) == ["DATA", f"--checkpoint={file}"]
    assert modernize("encode", ["--speaker", "anna"]) == ["--speaker", "anna"]
    assert modernize("convert", ["--source", "anna"]) == ["--speaker", "anna"]
    assert modernize("evaluate", ["--enrol=DIR"]) == ["--enroll=DIR"]
    assert modernize("kmeans", ["--checkpoint-path=P"]) == ["--content-checkpoint=P"]


@pytest.mark.parametrize("arguments", [["sing"], ["--print-completion", "fish"], []])
def test_an_unknown_verb_shows_the_usage(arguments, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert "usage: resynth VERB" in shown.err + shown.out


def test_completion_knows_verbs_and_options(capsys):
    pytest.importorskip("shtab")
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert (
        "--random-targets" in script
        and "units-quality" in script
        and "_shtab_compgen_files" in script
    )


def test_the_same_model_twice_is_refused(capsys, tmp_path):
    arguments = ["quantize-f0", str(tmp_path), "--checkpoint", "a.pt", "--bundle", "b"]
    assert main(arguments) == 2
    assert "--checkpoint and --bundle both name an F0 quantizer" in capsys.readouterr().err
    assert main(["synthesize", "--bundle", "b", "--ema", "--input", "x", "--outdir", "y"]) == 2
    assert "--ema needs --checkpoint" in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_traceback():
    """As when `resynth --help` is piped into `head`."""
    command = [sys.executable, "-m", "fairseq_resynth.cli.main", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    "words, continues",
    [
        ("play --bundle b", False),
        ("kmeans data --feature-type logmel --out km", False),
        ("convert --bundle b --stream", False),
        ("convert in.wav --bundle b --outdir out", True),
    ],
)
def test_an_interruption_says_whether_the_command_continues(capsys, monkeypatch, words, continues):
    def interrupted(args):
        raise KeyboardInterrupt

    verb = words.split()[0]
    monkeypatch.setattr(f"fairseq_resynth.cli.{verb}.run", interrupted)
    assert main(words.split()) == 130
    rest = "; the same command continues where it stopped" * continues
    assert capsys.readouterr().err == f"\nresynth {verb}: interrupted{rest}\n"


def test_errors_of_the_system_are_sentences():
    assert _reason(FileExistsError(17, "File exists", "out")) == (
        "out is or lies below a file, expected a folder"
    )
    assert _reason(OSError(30, "Read-only file system", "x")) == "x: Read-only file system"
    assert _reason(OSError("a sentence")) == "a sentence"
