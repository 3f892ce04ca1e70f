"""Options of the page and lines of figures that `resynth evaluate` and `resynth report` share."""

import argparse


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the page, which `resynth report` shares."""
    page = parser.add_argument_group("report")
    page.add_argument("--title", default="Evaluation")
    page.add_argument(
        "--examples", type=int, default=10, metavar="N", help="best and worst N with players"
    )
    page.add_argument("--rank-by", default="", metavar="COLUMN", help="what best and worst mean")
    page.add_argument(
        "--audio",
        choices=("embed", "link", "none"),
        default="embed",
        help="put audio into the page, link the files, or leave players out (%(default)s)",
    )


def page_options(args: argparse.Namespace):
    """Returns the options of `add_report_options` as `ReportOptions`."""
    from fairseq_resynth.evaluation.report import ReportOptions

    if args.examples < 0:
        raise ValueError(f"--examples {args.examples}: expected 0 or more")
    return ReportOptions(args.title, args.examples, args.rank_by, args.audio)


def summary_lines(evaluation) -> list[str]:
    """Returns a line a system and figure: mean, interval, utterances."""
    from fairseq_resynth.evaluation.report import POOLED
    from fairseq_resynth.evaluation.summary import comparison_note
    from fairseq_resynth.evaluation.tables import number

    lines = []
    for system in evaluation.systems:
        lines.append(system)
        for column in (*evaluation.columns, *POOLED):
            figure = evaluation.summary[system]["all"].get(column.name)
            if figure:
                shown = [number(figure[key], column) for key in ("mean", "low", "high")]
                label = f"  {column.label}".ljust(22)
                lines.append(f"{label}{shown[0]:>9}  [{shown[1]}, {shown[2]}]  n={figure['count']}")
    note = comparison_note(evaluation.rows)
    return [*lines, note] if note else lines
