"""A listening test as a static page, and what its results mean.

    resynth listening-test --systems mine=OUT theirs=OTHER --reference WAVS --kind mushra --outdir TEST
    resynth listening-test --outdir TEST --collect results/*.json

Put TEST on any web server, or open TEST/index.html; but keep TEST/key.json, which says which file is which
system, from listeners. Each downloads a JSON file of answers, which --collect reads.
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli.options import add_json, make_outdir, report, shortened


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument(
        "--systems", nargs="+", default=[], metavar="[NAME=]DIR", help="folders of audio"
    )
    parser.add_argument("--reference", metavar="DIR|DATA", help="recordings; mushra needs them")
    parser.add_argument("--split", default="test", help="of DATA (%(default)s)")
    parser.add_argument("--kind", choices=("mos", "mushra", "abx"), default="mos")
    parser.add_argument(
        "--number", type=int, default=20, metavar="N", help="utterances; 0: all (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw (%(default)s)")
    parser.add_argument("--keep-level", action="store_true", help="do not bring all to -26 dB RMS")
    parser.add_argument("--title", default="Listening test")
    parser.add_argument("--collect", nargs="+", metavar="RESULTS", help="listeners' files")
    parser.add_argument("--outdir", required=True, metavar="TEST", help="the test's folder")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Makes a test, or collects its results."""
    if args.collect and (args.systems or args.reference):
        raise ValueError("give --systems to make a test, or --collect to read results, not both.")
    return _collect(args) if args.collect else _make(args)


def _make(args: argparse.Namespace) -> int:
    from fairseq_resynth.evaluation.listening.tests import (
        ANCHOR,
        REFERENCE,
        TestOptions,
        make_test,
        names_left_out,
    )
    from fairseq_resynth.evaluation.runs.pairing import named_folder, read_collection, read_folder

    if not args.systems:
        raise ValueError("give --systems to make a test, or --collect to read results.")
    for name in ("number", "seed"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name} {getattr(args, name)}: expected 0 or more")
    systems = {}
    for label, folder in map(named_folder, args.systems):
        if label in systems or label in (REFERENCE, ANCHOR):
            raise ValueError(f"a system cannot be called {label!r} here; name it with NAME=DIR")
        systems[label] = read_folder(folder)
    if args.reference:
        systems[REFERENCE] = read_collection(args.reference, args.split)
    make_outdir(args.outdir)
    options = TestOptions(args.kind, args.number, args.seed, args.keep_level, args.title)
    key = make_test(systems, args.outdir, options)
    page = Path(args.outdir) / "index.html"
    lines = [f"{len(key['trials'])} questions, {len(key['stimuli'])} recordings: {page}"]
    used = len({entry["utterance"] for entry in key["stimuli"].values()})
    if used < args.number:
        lines.append(f"{used} utterances: no more are in all of the systems")
    left = names_left_out(systems)
    for label, names in left.items():
        lines.append(
            f"{label}: {len(names)} not in all of the systems, left out: {shortened(names)}"
        )
    summary = {"trials": len(key["trials"]), "stimuli": len(key["stimuli"]), "page": str(page)}
    lines.append(f"keep {page.with_name('key.json')} from listeners")
    report(args, summary | {"utterances": used, "left_out": left}, lines)
    return 0


def _collect(args: argparse.Namespace) -> int:
    from fairseq_resynth.data.storage.files import write_json
    from fairseq_resynth.evaluation.listening.results import collect_results, read_key, read_results

    folder = Path(args.outdir)
    key = read_key(folder / "key.json")
    outcome = collect_results(read_results(args.collect, key), key)
    write_json(folder / "outcome.json", outcome)
    lines = [f"{outcome['kind']}: {outcome['listeners']} listeners"]
    if outcome["dropped"]:
        who = ", ".join(name or "unnamed" for name in outcome["dropped"])
        lines.append(f"dropped, did not hear the hidden reference: {who}")
    for name, figure in outcome["systems"].items():
        if outcome["kind"] == "abx":
            counts = f"{figure['correct']}/{figure['count']} right"
            shown = f"{counts} [{figure['low']:.2f}, {figure['high']:.2f}], p = {figure['p']:.3g}"
        else:
            shown = f"{figure['mean']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
            shown += f"  n={figure['count']}"
        lines.append(f"  {name}: {shown}")
    report(args, outcome, lines)
    return 0
