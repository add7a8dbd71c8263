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

KEY = ["setting", "variant", "mode", "draw"]
COLUMNS = [
    *("setting", "variant", "dataset", "source", "bundle", "labelled_cases", "mode", "draw", "steps"),
    *("processor_seconds", "mean_dice", "dice", "tested_on", "commit", "version"),
]
RESULTS = Path("shared") / "docs" / "results"
FIGURE = Path(".github") / "images" / "evidence.png"
BEGIN, END = "<!-- evidence: python ci/evidence.py write -->", "<!-- end of evidence -->"
NNUNET = "nnunet"
"""nnU-Net v2 on the same labelled cases for the processor time of ``medcontext``; see nnunet.py."""
EQUAL_TIME, DEFAULT, UNLABELED = "baseline_equal_time", "medcontext", "medcontext_unlabeled"
NETWORKS = {
    "medcontext_unetr": "UNETR",
    "medcontext_swin_unetr": "SwinUNETR",
    "medcontext_nnformer": "nnFormer",
    "medcontext_unetr_plus_plus": "UNETR++",
    "medcontext_resenc_unet": "ResEnc U-Net",
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
        yield title, some, dice[[mode for mode in (*MODES, NNUNET) if mode in dice.columns]]


def readme_table(rows: pd.DataFrame) -> str:
    """The table of the README: the default and unlabelled scans against the baseline at equal time."""
    lines = [
        "| dataset, network | baseline, equal time | MedContext | gain | with unlabelled scans | further gain "
        "| nnU-Net, equal time |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, _, dice in groups(rows):
        means = {mode: f"{dice[mode].mean():.3f}" for mode in dice.columns}
        cells = [means.get(EQUAL_TIME, "–"), means.get(DEFAULT, "–"), gain(dice, DEFAULT, EQUAL_TIME)]
        cells += [means.get(UNLABELED, "–"), gain(dice, UNLABELED, DEFAULT), means.get(NNUNET, "–")]
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
    parts.append(_provenance(rows))
    return "\n\n".join(parts) + "\n"


def variants_document(rows: pd.DataFrame) -> str:
    """What was tried before the defaults were chosen, with each variant's difference to the baseline, as Markdown."""
    parts = [
        "# Variants",
        "What was tried to choose the defaults, on a fold of the training cases: the test cases had no part in it. "
        "[variants.json](../../../ci/evidence/variants.json) and "
        "[two_labels.json](../../../ci/evidence/two_labels.json), which is run and collected alike, have the settings "
        "and how a variant differs from `medcontext`, which is "
        "`train.json` as it was then. Mean Dice of every run of [variants.csv](variants.csv), and its difference to "
        "the baseline of the same draw, with the variant's overrides where that was trained too, with 95 % intervals "
        "over draws by Student's t. To repeat it:",
        "```bash\npython ci/evidence.py run --settings ci/evidence/variants.json --test_fold 0 --data data\n"
        "python ci/evidence.py collect --settings ci/evidence/variants.json --test_fold 0\n"
        "python ci/evidence.py write\n```",
    ]
    for setting, some in rows.groupby("setting"):
        named = some.assign(what=[_described(*pair) for pair in some[["variant", "mode"]].values])
        dice = named.pivot_table(index="draw", columns="what", values="mean_dice")
        variant_of = dict(zip(named["what"], named["variant"], strict=True))
        control = {what: _control(variant_of[what], dice) for what in dice.columns}
        gains = {what: gain(dice, what, control[what]) for what in dice.columns if what != control[what]}
        lines = [
            f"| variant | steps | processor seconds | mean | gain over the baseline (95 %) | {_draws(dice)} |",
            "|---" * (5 + len(dice)) + "|",
        ]
        for what in sorted(dice.columns, key=lambda what: -gains[what].mean if what in gains else 0.0):
            own = named[named["what"] == what]
            cost = f"{own['steps'].mean():.0f} | {own['processor_seconds'].mean():.0f}"
            lines.append(
                f"| {what} | {cost} | {dice[what].mean():.3f} | {gains.get(what, '–')} | {_row(dice[what], '.3f')} |"
            )
        tested = ", ".join(sorted(set(some["tested_on"])))
        parts += [f"## {setting[0].upper()}{setting[1:]}", f"Data: {some['source'].iloc[0]}. Tested on {tested}."]
        parts.append("\n".join(lines))
    parts.append(_provenance(rows))
    return "\n\n".join(parts) + "\n"


def _described(variant: str, mode: str) -> str:
    """The variant of ``medcontext``, or another mode with the variant's overrides."""
    return ", ".join(name for name in (variant, "" if variant and mode == "medcontext" else mode) if name)


def _control(variant: str, dice: pd.DataFrame) -> str:
    """The baseline with the variant's overrides where it was trained, such as one of the same length."""
    own = _described(variant, "baseline")
    return own if own in dice else "baseline"


def _draws(dice: pd.DataFrame) -> str:
    return " | ".join(f"draw {draw}" for draw in dice.index)


def _row(values: pd.Series[float], form: str) -> str:
    return " | ".join("–" if value != value else format(value, form) for value in values)


def _provenance(rows: pd.DataFrame) -> str:
    commits = ", ".join(sorted({str(commit)[:10] for commit in rows["commit"].dropna()}))
    return f"Trained with medcontext {', '.join(sorted(set(rows['version'].astype(str))))}, commits {commits}."


def _runs_table(rows: pd.DataFrame, dice: pd.DataFrame) -> str:
    lines = [f"| mode | steps | processor seconds | mean | {_draws(dice)} |", "|---" * (4 + len(dice)) + "|"]
    for mode in dice.columns:
        own = rows[rows["mode"] == mode]
        cost = f"{own['steps'].mean():.0f} | {own['processor_seconds'].mean():.0f}"
        lines.append(f"| {mode} | {cost} | {dice[mode].mean():.3f} | {_row(dice[mode], '.3f')} |")
    return "\n".join(lines)


def _differences_table(dice: pd.DataFrame) -> str:
    lines = [f"| difference | mean (95 %) | {_draws(dice)} |", "|---" * (2 + len(dice)) + "|"]
    for place, mode in enumerate(dice.columns):
        for other in dice.columns[:place]:
            differences = _row(dice[mode] - dice[other], "+.3f")
            lines.append(f"| {mode} − {other} | {gain(dice, mode, other)} | {differences} |")
    return "\n".join(lines)


def draw_gains(rows: pd.DataFrame) -> Figure:
    """Gains of each mode over the baseline at equal time with their intervals, a panel for each setting."""
    settings = list(groups(rows))
    columns = min(4, len(settings))
    lines = -(-len(settings) // columns)
    figure = Figure(figsize=(3.4 * columns, 0.6 + 2.2 * lines), dpi=120, layout="constrained")
    modes = [mode for mode in (*MODES, NNUNET) if mode != EQUAL_TIME]
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
    """Make the README's table, ``evidence.md`` and ``variants.md`` say what the CSV files say.

    Args:
        root: folder of the repository.
        check: write nothing. Without ``evidence.csv`` the README must have no table.

    Returns:
        Paths of the documents that said something else.

    Raises:
        ValueError: If a CSV file lacks a column, or the README has no place for the table.
    """
    readme, results = root / "README.md", root / RESULTS
    text = readme.read_text(encoding="utf-8")
    place = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    wanted = {}
    if (variants := _read_rows(results / "variants.csv")) is not None:
        wanted[results / "variants.md"] = variants_document(variants)
    if (rows := _read_rows(results / "evidence.csv")) is not None:
        if not place.search(text):
            raise ValueError(f"{readme} has no place for the table; put the lines {BEGIN} and {END} into it.")
        wanted[readme] = place.sub(lambda _: f"{BEGIN}\n\n{readme_table(rows)}\n\n{END}", text)
        wanted[results / "evidence.md"] = pairs_document(rows)
    different = [path for path, new in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != new]
    if rows is None and BEGIN in text:  # a table without figures behind it
        different.append(readme)
    if not check:
        for path in wanted.keys() & set(different):
            path.write_text(wanted[path], encoding="utf-8")
    if rows is not None and not check:
        (root / FIGURE).parent.mkdir(parents=True, exist_ok=True)
        draw_gains(rows).savefig(root / FIGURE)
    elif rows is not None and not (root / FIGURE).is_file():
        different.append(root / FIGURE)
    return [path.relative_to(root).as_posix() for path in different]


def _read_rows(csv: Path) -> pd.DataFrame | None:
    if not csv.is_file():
        return None
    rows = pd.read_csv(csv, keep_default_na=False)
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing or rows.empty:
        raise ValueError(f"{csv} must have runs, with the columns {', '.join(COLUMNS)}; collect them again.")
    return rows
