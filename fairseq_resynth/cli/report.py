"""Join several evaluations into one comparison: resynth report REPORT_A REPORT_B --outdir BOTH"""

import argparse
from pathlib import Path

from fairseq_resynth.cli import common


def add_arguments(add: common.Options) -> None:
    """Adds the verb's options."""
    add("evaluations REPORT", "folder that `resynth evaluate` wrote", nargs="+")
    add("--outdir DIR", "folder to write", required=True)
    common.add_report_options(add)
    add.shared("--json")


def run(args: argparse.Namespace) -> int:
    """Writes the joined tables and page."""
    from fairseq_resynth.evaluation.report.report import write_report
    from fairseq_resynth.evaluation.runs.store import join, write_evaluation

    options, outdir = common.page_options(args), Path(args.outdir)
    evaluation = join(args.evaluations)
    given = {Path(folder).resolve() for folder in args.evaluations}
    if len(args.evaluations) > 1 and outdir.resolve() in given:
        raise ValueError(f"--outdir {outdir} is one of the evaluations; give another folder")
    common.make_outdir(outdir)
    write_evaluation(outdir, evaluation)
    write_report(outdir / "index.html", evaluation, options)
    gone = _audio_that_is_gone(evaluation) if options.audio != "none" else []
    lines = [*common.summary_lines(evaluation), str(outdir / "index.html")]
    if gone:
        lines.append(
            f"{len(gone)} audio files no longer exist, so the page cannot play them: {gone[0]} …"
        )
    summary = {"outdir": args.outdir, "systems": evaluation.systems, "gone": gone}
    return common.report(args, summary, lines, gone)


def _audio_that_is_gone(evaluation) -> list[str]:
    measured = [row for row in evaluation.rows if not row["error"]]
    files = sorted({row[key] for row in measured for key in ("generated", "reference")})
    return [name for name in files if not Path(name).is_file()]
