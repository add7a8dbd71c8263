"""ACDC, cine cardiac MRI, in the layouts of the challenge and of nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence

from medcontext.data.datasets import ACDC_LABELS
from medcontext.providers.layouts import Edition, Pattern
from medcontext.storage.archives import Source

__all__ = ["EDITIONS"]

CASE = r"(?P<case>patient\d{3}_frame\d{2})"
DESCRIPTION = "Automated Cardiac Diagnosis Challenge, end-diastolic and end-systolic frames, with the split of nnFormer"
REFERENCE = "https://www.creatis.insa-lyon.fr/Challenge/acdc/"


def find_other_frames(source: Source, cases: Sequence[str]) -> list[str]:
    """Find cases that are neither the end-diastolic nor the end-systolic frame in the patient's ``Info.cfg``."""
    infos = {name.split("/")[-2]: name for name in source.files if name.endswith("/Info.cfg")}
    problems = []
    for patient in sorted({case.split("_")[0] for case in cases} & infos.keys()):
        with source.open(infos[patient]) as stream:
            lines = [line.partition(":") for line in stream.read().decode("utf-8", "replace").splitlines()]
        info = {key.strip(): value.strip() for key, _, value in lines}
        frames = {f"{patient}_frame{info[key].zfill(2)}" for key in ("ED", "ES") if key in info}
        others = [case for case in cases if case.startswith(f"{patient}_") and case not in frames]
        if others:
            problems.append(
                f"{infos[patient]} names {' and '.join(sorted(frames)) or 'no frames under ED and ES'}, "
                f"the split {' and '.join(others)}."
            )
    return problems


EDITIONS = (
    Edition(
        name="ACDC",
        channels=(Pattern(rf"patient\d{{3}}/{CASE}", "training/{patient}/{case}"),),
        label=Pattern(rf"patient\d{{3}}/{CASE}_gt", "training/{patient}/{case}_gt"),
        modality={0: "MRI"},
        labels=ACDC_LABELS,
        description=DESCRIPTION,
        reference=REFERENCE,
        other=r"_4d\.nii(\.gz)?$",
        patient=r"patient\d{3}",
        find_contradictions=find_other_frames,
    ),
    Edition(
        name="ACDC in nnU-Net's layout",
        channels=(Pattern(rf"images(?:Tr|Ts)/{CASE}(?:_0000)?", "imagesTr/{case}_0000"),),
        label=Pattern(rf"labels(?:Tr|Ts)/{CASE}", "labelsTr/{case}"),
        modality={0: "MRI"},
        labels=ACDC_LABELS,
        description=DESCRIPTION,
        reference=REFERENCE,
        patient=r"patient\d{3}",
    ),
)
"""``training/patient001/patient001_frame01{,_gt}.nii.gz`` with its ``Info.cfg``, and nnU-Net's ``imagesTr``."""
