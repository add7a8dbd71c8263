"""Commands for finished training runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medcontext.cli.arguments import as_tuple
from medcontext.text import printable_lines

__all__ = ["compare", "send_unsent"]


def compare(
    experiment: str,
    output_dir: str,
    group_by: str | Sequence[str] = ("architecture", "dataset", "train_fraction"),
    tracking_uri: str | None = None,
    log_to_mlflow: bool = True,
    predictions: str | Sequence[str] = (),
    dataset_dir: str | None = None,
) -> None:
    """Compare the runs in MLflow: whether MedContext helps, and which rung of the ladder carries the gain.

    Args:
        experiment: name of the MLflow experiment.
        output_dir: folder for the page, its pictures and the tables.
        group_by: names of tags or hyperparameters, separated by commas.
        tracking_uri: database or server; by default ``$MLFLOW_TRACKING_URI``, else ``mlruns.db`` of the home.
        log_to_mlflow: log the result to the experiment too, in place of an earlier one by the same names.
        predictions: label maps of other tools on the same test cases, ``NAME=FOLDER`` separated by commas, or
            ``NAME@SEED=FOLDER`` for the draw of each seed; in the ids of the dataset's files.
        dataset_dir: folder of the dataset that these belong to, if the runs do not say where it is.
    """
    from medcontext.comparison import compare_runs
    from medcontext.comparison.page import PAGE, prediction_sentences

    comparison = compare_runs(
        str(experiment),
        output_dir,
        group_by=[str(name) for name in as_tuple(group_by)],
        tracking_uri=tracking_uri,
        log_to_mlflow=log_to_mlflow,
        predictions=[str(each) for each in as_tuple(predictions)],
        dataset_dir=dataset_dir,
    )
    for group in comparison.groups:
        print(printable_lines(group.sentence))
        for step in group.ladder.steps:
            print(printable_lines(f"  {step.line}"))
    for setting in comparison.few_shot.values():
        for sentence in setting.efficiency.sentences:
            print(printable_lines(f"{setting.title}. {sentence}"))
    for sentence in prediction_sentences(comparison):
        print(printable_lines(sentence))
    print(Path(output_dir) / PAGE)


def send_unsent(ckpt_dir: str, tracking_uri: str | None = None) -> None:
    """Send records to MLflow that were kept while it was unreachable.

    Args:
        ckpt_dir: folder of the run's checkpoints, beside which the records are kept.
        tracking_uri: database or server; by default ``$MLFLOW_TRACKING_URI``, else ``mlruns.db`` of the home. The one
            that the folder names is shown, and must be given if it is another.
    """
    from medcontext.comparison.store import default_tracking_uri
    from medcontext.tracking.unsent import send_kept

    sent = send_kept(str(ckpt_dir), tracking_uri, default=default_tracking_uri())
    print(f"{sent} records sent to MLflow")
