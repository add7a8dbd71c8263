"""Layouts of the providers' datasets, and the search for their cases in a download."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from medcontext.data.datasets import UNLABELED, Split
from medcontext.storage.archives import Source

__all__ = ["Edition", "FoundCases", "Pattern", "find_cases"]

NIFTI = re.compile(r"\.nii(\.gz)?$")
ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
SHOWN = 6


@dataclass(frozen=True)
class Pattern:
    """One kind of file of a case.

    Attributes:
        source: regular expression of its path in the download, with a group ``case``, below any folders. The ending
            ``.nii`` or ``.nii.gz`` is added.
        target: its path in the prepared folder, without the ending, with ``{case}`` and ``{patient}``.
    """

    source: str
    target: str


@dataclass(frozen=True)
class Edition:
    """One form in which a dataset is published, and the meaning of its files.

    Attributes:
        name: name of the edition.
        channels: the image's file, or one file for each channel, in the network's order.
        label: the label map's file.
        modality: names of the channels.
        labels: names of the label ids in the files, background included.
        description: what the dataset shows.
        reference: where the dataset is published.
        example: pattern of case ids, for messages.
        other: regular expression of paths in the download that are known and not needed.
        patient: regular expression of the patient at the start of a case id, where a patient has several cases.
        published_split: whether the case ids are those of a published split.
        unlabelled: the file of images without labels, where these are kept as unlabelled scans.
        read_split: returns the case ids of each section, ``unlabeled`` included, and the origin of this split; for
            downloads that list their own cases.
        find_contradictions: returns facts in the source that contradict the given cases, one sentence each.
    """

    name: str
    channels: tuple[Pattern, ...]
    label: Pattern
    modality: dict[int, str]
    labels: dict[int, str]
    description: str
    reference: str
    example: str = "*"
    other: str | None = None
    patient: str | None = None
    published_split: bool = True
    unlabelled: Pattern | None = None
    read_split: Callable[[Source, FoundCases], tuple[Split, str]] | None = None
    find_contradictions: Callable[[Source, Sequence[str]], list[str]] | None = None

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The channels' patterns and, last, the label's."""
        return (*self.channels, self.label)

    def patterns_of(self, section: str) -> tuple[Pattern, ...]:
        """Return the patterns of the files that a case of this section has."""
        return (self.unlabelled,) if section == UNLABELED and self.unlabelled else self.patterns

    def patient_of(self, case: str) -> str:
        """Return the patient of a case, or the case itself where its name has none."""
        match = re.match(self.patient, case) if self.patient else None
        return match[0] if match else case

    def target(self, pattern: Pattern, case: str, ending: str = ".nii.gz") -> str:
        """Return the path of a case's file in the prepared folder."""
        return pattern.target.format(case=case, patient=self.patient_of(case)) + ending


@dataclass
class FoundCases:
    """The cases of one edition in a source.

    Attributes:
        edition: the edition.
        files: names in the source by case, then by pattern.
        duplicates: sentences about files that exist twice.
        unassigned: NIfTI files that belong to no case.
    """

    edition: Edition
    files: dict[str, dict[Pattern, str]] = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    unassigned: list[str] = field(default_factory=list)

    def missing(self, case: str, section: str) -> list[str]:
        """Return the paths in the prepared folder of the files that a case of this section lacks."""
        present = self.files.get(case, {})
        return [
            self.edition.target(pattern, case)
            for pattern in self.edition.patterns_of(section)
            if pattern not in present
        ]


def find_cases(editions: Sequence[Edition], source: Source) -> FoundCases:
    """Determine which edition a source holds, and find its cases.

    Raises:
        ValueError: If it holds none, or several; the message names what was expected and what was found.
    """
    found = [cases for cases in (_cases_of(edition, source) for edition in editions) if cases.files]
    if len(found) == 1:
        return found[0]
    if found:
        held = "; ".join(f"{one.edition.name}: {len(one.files)} cases, such as {_first_file(one)}" for one in found)
        raise ValueError(
            f"{source.path} mixes editions ({held}); label ids differ between them; give the folder or archive of one."
        )
    expected = "\n".join(f"  {edition.name}: {expected_files(edition)}" for edition in editions)
    raise ValueError(
        f"{source.path} holds none of the files of this dataset. Expected, in any folder:\n{expected}\n"
        f"{_content_in_words(source)}"
    )


def expected_files(edition: Edition) -> str:
    """Return the names of one case's files, for messages."""
    return ", ".join(edition.target(pattern, edition.example) for pattern in edition.patterns)


def _cases_of(edition: Edition, source: Source) -> FoundCases:
    result = FoundCases(edition)
    patterns = [*edition.patterns, *([edition.unlabelled] if edition.unlabelled else [])]
    expressions = {pattern: re.compile(rf"(?:^|/){pattern.source}\.nii(?:\.gz)?$") for pattern in patterns}
    for name in source.files:
        if not NIFTI.search(name) or (edition.other and re.search(edition.other, name)):
            continue
        for pattern, expression in expressions.items():
            match = expression.search(name)
            if match is None:
                continue
            files = result.files.setdefault(match["case"], {})
            if pattern in files:
                result.duplicates.append(
                    f"{files[pattern]} and {name} are the same file of {match['case']}; remove one."
                )
            files[pattern] = name
            break
        else:
            result.unassigned.append(name)
    return result


def _first_file(found: FoundCases) -> str:
    return next(name for files in found.files.values() for name in files.values())


def _content_in_words(source: Source) -> str:
    volumes = [name for name in source.files if NIFTI.search(name)]
    archives = [name for name in source.files if ARCHIVE.search(name)]
    if archives:
        return f"It holds archives ({', '.join(archives[:SHOWN])}); give one of them as the source."
    if not volumes:
        return "It holds no NIfTI file at all."
    more = f" and {len(volumes) - SHOWN} more" if len(volumes) > SHOWN else ""
    return f"It holds {', '.join(volumes[:SHOWN])}{more}."
