"""Make a listening test as a static page, or evaluate its results.

    resynth listening-test --systems mine=OUT theirs=OTHER --reference WAVS --kind mushra --outdir TEST
    resynth listening-test --outdir TEST --collect results/*.json

Put TEST on any web server, or open TEST/index.html. Do not give listeners TEST/key.json, which says which
file belongs to which system. Each listener downloads a JSON file of answers, which --collect reads.
"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common
from fairseq_resynth.data.storage.messages import first_names


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("--systems [NAME=]DIR", "folders of audio", [], nargs="+")
    add("--reference DIR|DATA", "recordings; mushra needs them")
    add("--split", "split of DATA", "test")
    add("--kind", "kind of test", "mos", choices=("mos", "mushra", "abx"))
    add("--number N", "number of utterances; 0: all", 20)
    add("--seed", "seed of the choice of utterances and of their order", 0)
    add("--keep-level", "do not normalize all files to -26 dB RMS", False)
    add("--title", "heading of the page", "Listening test")
    add("--collect RESULTS", "the listeners' files of answers", nargs="+")
    add("--outdir TEST", "folder of the test", required=True)
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Makes a test, or collects its results."""
    if args.collect and (args.systems or args.reference):
        raise ValueError("give --systems to make a test, or --collect to read results, not both.")
    return _collect(args) if args.collect else _make(args)


def _make(args: argparse.Namespace) -> int:
    from fairseq_resynth.evaluation.listening import (
        ANCHOR,
        ListeningTest,
        make_test,
        names_left_out,
    )
    from fairseq_resynth.evaluation.metrics.metric import REFERENCE
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
    common.make_outdir(args.outdir)
    options = ListeningTest(args.kind, args.number, args.seed, args.keep_level, args.title)
    key = make_test(systems, args.outdir, options)
    page = Path(args.outdir) / "index.html"
    lines = [f"{len(key['trials'])} questions, {len(key['stimuli'])} recordings: {page}"]
    used = len({entry["utterance"] for entry in key["stimuli"].values()})
    if used < args.number:
        lines.append(f"{used} utterances: all systems have no more than these in common")
    left = names_left_out(systems)
    for label, names in left.items():
        lines.append(
            f"{label}: {len(names)} left out, since not all systems have them: {first_names(names, 5)}"
        )
    summary = {"trials": len(key["trials"]), "stimuli": len(key["stimuli"]), "page": str(page)}
    lines.append(f"do not give {page.with_name('key.json')} to listeners")
    return common.report(args, summary | {"utterances": used, "left_out": left}, lines)


def _collect(args: argparse.Namespace) -> int:
    from fairseq_resynth.data.storage.files import write_json
    from fairseq_resynth.evaluation.listening import collect_results, read_key, read_results

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
    return common.report(args, outcome, lines)
