"""Tables and figure of ``evidence.py``: means over draws, and paired differences with intervals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from medcontext.experiment import MODES

KEY = ["dataset", "bundle", "labelled_cases", "mode", "draw"]
COLUMNS = [
    *("dataset", "source", "bundle", "labelled_cases", "mode", "draw", "steps", "processor_seconds"),
    *("mean_dice", "dice", "commit", "version"),
]
RESULTS = Path("shared") / "docs" / "results"
FIGURE = Path(".github") / "images" / "evidence.png"
BEGIN, END = "<!-- evidence: python ci/evidence.py write -->", "<!-- end of evidence -->"
EQUAL_TIME, DEFAULT, UNLABELED = "baseline_equal_time", "medcontext", "medcontext_unlabeled"
NETWORKS = {
    "medcontext_unetr": "UNETR",
    "medcontext_swin_unetr": "SwinUNETR",
    "medcontext_nnformer": "nnFormer",
    "medcontext_unetr_plus_plus": "UNETR++",
}


@dataclass(frozen=True)
class Gain:
    """Paired difference of two modes in mean Dice: draws, their mean, and its 95 % interval by Student's t."""

    draws: int
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if not self.draws:
            return "–"
        interval = f" ({self.low:+.3f} to {self.high:+.3f})" if self.draws > 1 else ""
        return f"{self.mean:+.3f}{interval}"


def gain(dice: pd.DataFrame, mode: str, other: str) -> Gain:
    """How much better a mode is than another, over the draws that both trained on.

    Cases are not resampled: the interval is about other draws of labelled cases, tested on the same cases.

    Args:
        dice: mean Dice, one row per draw and one column per mode.
        mode: a mode.
        other: the mode that it is compared with.
    """
    if not {mode, other} <= set(dice.columns):
        return Gain(0, float("nan"), float("nan"), float("nan"))
    differences = (dice[mode] - dice[other]).dropna()
    if len(differences) < 2:
        return Gain(len(differences), differences.mean(), float("nan"), float("nan"))
    mean, half = float(differences.mean()), float(stats.t.ppf(0.975, len(differences) - 1) * differences.sem())
    return Gain(len(differences), mean, mean - half, mean + half)


def groups(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """For each setting, in the order of the table, its title, its rows, and their mean Dice by draw and mode."""
    order = rows.assign(network=rows["bundle"].map(list(NETWORKS).index))
    for (_, dataset, cases, bundle), some in order.groupby(["network", "dataset", "labelled_cases", "bundle"]):
        dice = some.pivot_table(index="draw", columns="mode", values="mean_dice")
        title = f"{dataset}, {cases} labelled cases, {NETWORKS[str(bundle)]}"
        yield title, some, dice[[mode for mode in MODES if mode in dice.columns]]


def readme_table(rows: pd.DataFrame) -> str:
    """The table of the README: the default and unlabelled scans against the baseline at equal time."""
    lines = [
        "| dataset, network | baseline, equal time | MedContext | gain | with unlabelled scans | further gain |",
        "|---|---|---|---|---|---|",
    ]
    for title, _, dice in groups(rows):
        means = {mode: f"{dice[mode].mean():.3f}" for mode in dice.columns}
        cells = [means.get(EQUAL_TIME, "–"), means.get(DEFAULT, "–"), gain(dice, DEFAULT, EQUAL_TIME)]
        cells += [means.get(UNLABELED, "–"), gain(dice, UNLABELED, DEFAULT)]
        lines.append(f"| {title} | {' | '.join(map(str, cells))} |")
    sources = rows.drop_duplicates("dataset").set_index("dataset")["source"]
    lines += [
        "",
        "Mean test Dice of all labels; gains are paired by draw of the labelled cases, with 95 % intervals over draws. "
        f"Every run and pair: [evidence.md]({RESULTS.as_posix()}/evidence.md), "
        f"[evidence.csv]({RESULTS.as_posix()}/evidence.csv). Data: "
        + "; ".join(f"{name}, {source}" for name, source in sources.items())
        + ".",
        "",
        f"![Gains in Dice of each rung over the baseline at equal time]({FIGURE.as_posix()})",
    ]
    return "\n".join(lines)


def pairs_document(rows: pd.DataFrame) -> str:
    """Every run and every paired difference, as Markdown."""
    parts = [
        "# Evidence",
        "Mean test Dice of every run of [evidence.csv](evidence.csv), and the differences between modes, paired by "
        "draw of the labelled cases, with 95 % intervals over draws by Student's t. Labelled cases include those for "
        "validation. `baseline`, `patch_dropout`, `masking_only` and `medcontext` take equally many steps, the others "
        "as many as fit in the processor time of `medcontext`. To repeat it:",
        "```bash\npython ci/evidence.py run --data data --parallel 2\npython ci/evidence.py collect\n"
        "python ci/evidence.py write\n```",
    ]
    for title, some, dice in groups(rows):
        parts += [f"## {title[0].upper()}{title[1:]}", f"Data: {some['source'].iloc[0]}.", _runs_table(some, dice)]
        parts.append(_differences_table(dice))
    commits = ", ".join(sorted({str(commit)[:10] for commit in rows["commit"].dropna()}))
    versions = ", ".join(sorted(set(rows["version"].astype(str))))
    parts.append(f"Trained with medcontext {versions}, commits {commits}.")
    return "\n\n".join(parts) + "\n"


def _runs_table(rows: pd.DataFrame, dice: pd.DataFrame) -> str:
    draws = [f"draw {draw}" for draw in dice.index]
    lines = [f"| mode | steps | processor seconds | mean | {' | '.join(draws)} |", "|---" * (4 + len(draws)) + "|"]
    for mode in dice.columns:
        own = rows[rows["mode"] == mode]
        cells = [f"{value:.3f}" if value == value else "–" for value in dice[mode]]
        cost = f"{own['steps'].mean():.0f} | {own['processor_seconds'].mean():.0f}"
        lines.append(f"| {mode} | {cost} | {dice[mode].mean():.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences_table(dice: pd.DataFrame) -> str:
    draws = [f"draw {draw}" for draw in dice.index]
    lines = [f"| difference | mean (95 %) | {' | '.join(draws)} |", "|---" * (2 + len(draws)) + "|"]
    for place, mode in enumerate(dice.columns):
        for other in dice.columns[:place]:
            cells = [f"{value:+.3f}" if value == value else "–" for value in dice[mode] - dice[other]]
            lines.append(f"| {mode} − {other} | {gain(dice, mode, other)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_gains(rows: pd.DataFrame) -> Figure:
    """Gains of each mode over the baseline at equal time with their intervals, a panel for each setting."""
    settings = list(groups(rows))
    columns = min(4, len(settings))
    lines = -(-len(settings) // columns)
    figure = Figure(figsize=(3.4 * columns, 0.6 + 2.2 * lines), dpi=120, layout="constrained")
    modes = [mode for mode in MODES if mode != EQUAL_TIME]
    for place, (title, _, dice) in enumerate(settings, 1):
        axis = figure.add_subplot(lines, columns, place)
        for height, mode in enumerate(reversed(modes)):
            found = gain(dice, mode, EQUAL_TIME)
            if found.draws:
                axis.plot([found.low, found.high], [height, height], color="#2b6cb0")
                axis.plot(found.mean, height, "o", color="#2b6cb0")
        axis.axvline(0, color="#4a5568", linewidth=0.8)
        labels = reversed(modes) if place % columns == 1 or columns == 1 else [""] * len(modes)
        axis.set_yticks(range(len(modes)), labels, fontsize=8)
        axis.set_title(title, fontsize=8)
        axis.tick_params(axis="x", labelsize=8)
    figure.supxlabel("gain in mean Dice over the baseline at equal time, 95 % interval over draws", fontsize=9)
    return figure


def update_documents(root: Path, *, check: bool) -> list[str]:
    """Make the README's table and ``evidence.md`` say what ``evidence.csv`` says.

    Args:
        root: folder of the repository.
        check: write nothing. Without a CSV file the README must have no table.

    Returns:
        Paths of the documents that said something else.

    Raises:
        ValueError: If the CSV file lacks a column, or the README has no place for the table.
    """
    readme, csv = root / "README.md", root / RESULTS / "evidence.csv"
    text = readme.read_text(encoding="utf-8")
    place = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if check and not csv.is_file():
        return ["README.md"] if BEGIN in text else []
    rows = pd.read_csv(csv)
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing or rows.empty:
        raise ValueError(f"{csv} must have runs, with the columns {', '.join(COLUMNS)}; collect them again.")
    if not place.search(text):
        raise ValueError(f"{readme} has no place for the table; put the lines {BEGIN} and {END} into it.")
    wanted = {
        readme: place.sub(lambda _: f"{BEGIN}\n\n{readme_table(rows)}\n\n{END}", text),
        root / RESULTS / "evidence.md": pairs_document(rows),
    }
    different = [path for path, new in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != new]
    if not check:
        for path in different:
            path.write_text(wanted[path], encoding="utf-8")
        (root / FIGURE).parent.mkdir(parents=True, exist_ok=True)
        draw_gains(rows).savefig(root / FIGURE)
    elif not (root / FIGURE).is_file():
        different.append(root / FIGURE)
    return [path.relative_to(root).as_posix() for path in different]
