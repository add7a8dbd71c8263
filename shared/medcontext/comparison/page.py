"""Files of a comparison: tables, verdicts, pictures, and one page that opens anywhere without a network."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from matplotlib.figure import Figure

from medcontext.comparison.cost import cost_notes, cost_table
from medcontext.comparison.few_shot import FewShot, few_shot
from medcontext.comparison.figures import differences_figure, few_shot_figure, ladder_figure, overview_figure
from medcontext.comparison.pairing import UNPAIRED, Role
from medcontext.comparison.predictions import Predictions
from medcontext.comparison.results import FEWEST_SEEDS
from medcontext.comparison.rivals import Lead, leads
from medcontext.comparison.rungs import BASELINES, Rung, runs_by_rung
from medcontext.comparison.runs import TrackedRun
from medcontext.comparison.tables import difference_rows, efficiency_rows, ladder_rows, prediction_rows, run_rows
from medcontext.comparison.verdicts import SUBJECTS, Group, Subject
from medcontext.report.page import data_uri, number, png, render
from medcontext.storage.files import write_file
from medcontext.storage.json_files import json_text, read_json
from medcontext.storage.tables import csv_bytes

__all__ = ["PAGE", "Comparison", "prediction_sentences", "write_comparison"]

PAGE = "comparison.html"


@dataclass(frozen=True)
class Comparison:
    """Results of a comparison.

    Attributes:
        experiment: name of the MLflow experiment.
        group_by: names by which runs were grouped.
        groups: the groups with their verdicts.
        runs: all runs of the experiment, oldest first.
        roles: role of each run, by its identifier.
        info: time and place of the comparison, in reading order.
        predictions: scored predictions of other tools.
    """

    experiment: str
    group_by: Sequence[str]
    groups: Sequence[Group]
    runs: Sequence[TrackedRun]
    roles: Mapping[str, Role]
    info: Mapping[str, str]
    predictions: Sequence[Predictions] = ()

    def slug(self, group: Group) -> str:
        """Return a unique name of a group that is valid for files and for MLflow's metrics."""
        return _slugs([tuple(other.values.values()) for other in self.groups])[list(self.groups).index(group)]

    def figures(self) -> dict[str, Figure]:
        """Draw all figures, by the name of their file."""
        figures: dict[str, Figure] = {}
        for rung in SUBJECTS:
            shown = [group for group in self.groups if rung in group.subjects and group.subjects[rung].results]
            if len(shown) > 1:
                figures[subject_name("overview", rung)] = overview_figure(shown, rung)
        for group in self.groups:
            if any(result for step in group.ladder.steps for result in step.results.values()):
                figures[f"ladder_{self.slug(group)}.png"] = ladder_figure(group.ladder)
            for rung, subject in group.subjects.items():
                if subject.results:
                    figures[subject_name("differences", rung, self.slug(group))] = differences_figure(
                        subject.results, rung
                    )
        return figures | {
            f"few_shot_{slug}.png": few_shot_figure(runs_by_rung(setting.draws), setting.efficiency.curves)
            for slug, setting in self.few_shot.items()
            if setting.has_curve
        }

    @cached_property
    def few_shot(self) -> dict[str, FewShot]:
        """The settings that were compared, whatever their number of labelled cases, by a name for files and metrics."""
        settings = few_shot(self.groups)
        return dict(zip(_slugs([setting.values for setting in settings]), settings, strict=True))

    @cached_property
    def leads(self) -> list[tuple[Group, Lead]]:
        """How far the rungs of each group are ahead of the predictions of other tools."""
        return [(group, lead) for group in self.groups for lead in leads(group, self.predictions)]

    def notes(self) -> list[str]:
        """Return caveats that a reader should know."""
        used = [run for run in self.runs if self.roles[run.id].name != UNPAIRED]
        notes = []
        versions = sorted({run.tags.get("version", "unknown") for run in used})
        if len(versions) > 1:
            notes.append(f"The runs come from different versions of medcontext: {', '.join(versions)}.")
        lacking = sum(not run.config for run in used)
        if lacking:
            notes.append(
                f"{lacking} of {len(used)} compared runs did not keep their configuration: whether their networks, "
                "optimizers and augmentations were equal is not known."
            )
        return notes


def prediction_sentences(comparison: Comparison) -> list[str]:
    """Return what was measured of the predictions of other tools, in sentences."""
    own = [f"Predictions {others.name}: Dice {number(others.mean_dice)}." for others in comparison.predictions]
    return own + [
        f"{group.title}: Dice of {lead.rung.phrase} minus that of the predictions {lead.name}: {lead.text}."
        for group, lead in comparison.leads
        if lead.rung in SUBJECTS or lead.rung in BASELINES
    ]


def subject_name(first: str, rung: Rung, group: str = "") -> str:
    """Return the file name of a subject's figure, such as ``differences_unlabeled_unetr_acdc_1.png``."""
    return "_".join(filter(None, (first, "" if rung is Rung.MEDCONTEXT else "unlabeled", group))) + ".png"


def _slugs(values: Sequence[tuple[str, ...]]) -> list[str]:
    """Return unique names that are valid for files and for MLflow's metrics."""
    names = [re.sub(r"[^\w.-]+", "-", "_".join(parts)) for parts in values]
    return [name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)]


def write_comparison(output_dir: str | os.PathLike[str], comparison: Comparison) -> dict[str, Path]:
    """Write the files of a comparison.

    They are ``ladder.csv`` (one row per group and rung), ``comparison.csv`` (one row per group, control of MedContext
    and class), ``label_efficiency.csv`` (one row per setting, rung and number of labelled cases), ``runs.csv`` (every
    run, and its role or why it has none), ``predictions.csv`` if there are predictions of other tools (one row per
    case and class), the figures as PNG, ``comparison.json`` (verdicts) and last ``comparison.html``, which contains
    the figures. Every file is replaced atomically; figures and predictions of an earlier comparison are removed.

    Args:
        output_dir: folder, created if necessary.
        comparison: the comparison.

    Returns:
        The files by their names.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    pictures = {name: png(figure) for name, figure in comparison.figures().items()}
    contents = {
        "ladder.csv": csv_bytes(ladder_rows(comparison.groups)),
        "comparison.csv": csv_bytes(difference_rows(comparison.groups)),
        "label_efficiency.csv": csv_bytes(efficiency_rows(comparison.few_shot)),
        "runs.csv": csv_bytes(run_rows(comparison.runs, comparison.roles)),
        **({"predictions.csv": csv_bytes(prediction_rows(comparison.predictions))} if comparison.predictions else {}),
        **pictures,
        "comparison.json": json_text(_verdicts(comparison, list(pictures))).encode(),
        PAGE: _render_page(comparison, pictures).encode(),
    }
    if not comparison.predictions:
        (output / "predictions.csv").unlink(missing_ok=True)
    _remove_old_figures(output / "comparison.json", keep=pictures)
    return {name: write_file(output / name, content) for name, content in contents.items()}


def _remove_old_figures(earlier: Path, keep: Mapping[str, bytes]) -> None:
    """Remove the figures that an earlier comparison in this folder lists and this one lacks."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        for name in read_json(earlier)["figures"]:
            if name not in keep and re.fullmatch(r"[\w.-]+\.png", name):
                (earlier.parent / name).unlink(missing_ok=True)


def _verdicts(comparison: Comparison, figures: Sequence[str]) -> dict[str, object]:
    settings = comparison.few_shot.values()
    return {
        "experiment": comparison.experiment,
        "info": comparison.info,
        "group_by": list(comparison.group_by),
        "notes": comparison.notes(),
        "groups": [
            {
                "values": group.values,
                "verdict": str(group.verdict),
                "sentence": group.sentence,
                "ladder_sentence": group.ladder.sentence,
                "controls": _controls(group.subjects.get(Rung.MEDCONTEXT)),
                "controls_unlabeled": _controls(group.subjects.get(Rung.MEDCONTEXT_UNLABELED)),
                "cost": cost_table(group.draws).to_dict("index"),
            }
            for group in comparison.groups
        ],
        "ladder": ladder_rows(comparison.groups).to_dict("records"),
        "label_efficiency": {
            "sentences": {setting.title: list(setting.efficiency.sentences) for setting in settings},
            "rows": efficiency_rows(comparison.few_shot).to_dict("records"),
        },
        "predictions": [
            {"group": group.title, **asdict(lead), "rung": lead.rung.key} for group, lead in comparison.leads
        ],
        "figures": list(figures),
    }


def _controls(subject: Subject | None) -> dict[str, object]:
    return {
        control: {
            "verdict": str(result.verdict),
            "difference": result.mean[0],
            "interval_95": list(result.mean[1:]),
            "pairs": result.pairs,
            "seeds": result.seeds,
            "seconds_ratio": result.seconds_ratio,
        }
        for control, result in (subject.results.items() if subject else ())
    }


def _render_page(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    uris = {name: data_uri(picture) for name, picture in pictures.items()}
    rows = run_rows(comparison.runs, comparison.roles).fillna("").to_dict("records")
    return render(
        "comparison.html.j2",
        experiment=comparison.experiment,
        info=comparison.info,
        notes=comparison.notes(),
        groups=[_group_content(comparison, group, uris) for group in comparison.groups],
        overviews={rung: uri for rung in SUBJECTS if (uri := uris.get(subject_name("overview", rung)))},
        few_shot=[
            {"setting": setting, "uri": uris.get(f"few_shot_{name}.png")}
            for name, setting in comparison.few_shot.items()
        ],
        predictions=comparison.predictions,
        leads=comparison.leads,
        paired=[row for row in rows if row["role"] != UNPAIRED],
        unpaired=[row for row in rows if row["role"] == UNPAIRED],
        fewest=FEWEST_SEEDS,
    )


def _group_content(comparison: Comparison, group: Group, uris: Mapping[str, str]) -> dict[str, object]:
    slug = comparison.slug(group)
    return {
        "title": group.title,
        "verdict": str(group.verdict),
        "paragraphs": group.paragraphs,
        "ladder": group.ladder.steps,
        "ladder_uri": uris.get(f"ladder_{slug}.png"),
        "subjects": [
            {
                "rung": str(rung),
                "uri": uris.get(subject_name("differences", rung, slug)),
                "results": [
                    {
                        "control": str(control),
                        "result": result,
                        "rows": result.table.rename_axis("label").reset_index().to_dict("records"),
                    }
                    for control, result in subject.results.items()
                ],
            }
            for rung, subject in group.subjects.items()
        ],
        "cost": cost_table(group.draws).rename_axis("rung").reset_index().to_dict("records"),
        "cost_notes": cost_notes(group.draws),
    }
