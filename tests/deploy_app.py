"""An application of MONAI Deploy: a DICOM series, a bundle, and a DICOM SEG; run in the environment of monai_deploy.sh.

python deploy_app.py SERIES BUNDLE OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application
from monai.deploy.core.domain import Image
from monai.deploy.core.io_type import IOType
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_seg_writer_operator import DICOMSegmentationWriterOperator, SegmentDescription
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator
from pydicom.sr.codedict import codes

SERIES, BUNDLE, OUTPUT = map(Path, sys.argv[1:])


class BundleApplication(Application):
    """From a series to its segmentation."""

    def compose(self) -> None:
        metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text(encoding="utf-8"))
        channels = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        segments = [
            SegmentDescription(
                segment_label=name,
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Organ,
                algorithm_name=metadata["name"],
                algorithm_version=metadata["version"],
            )
            for index, name in channels.items()
            if int(index)
        ]
        once = CountCondition(self, 1)
        loader = DICOMDataLoaderOperator(self, once, input_folder=SERIES, name="loader")
        selector = DICOMSeriesSelectorOperator(self, rules="", name="selector")
        volume = DICOMSeriesToVolumeOperator(self, name="volume")
        bundle = MonaiBundleInferenceOperator(
            self,
            app_context=AppContext({}),
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            bundle_path=BUNDLE,
            name="bundle",
        )
        writer = DICOMSegmentationWriterOperator(
            self, segment_descriptions=segments, output_folder=OUTPUT, name="writer"
        )
        self.add_flow(loader, selector, {("dicom_study_list", "dicom_study_list")})
        self.add_flow(selector, volume, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(volume, bundle, {("image", "image")})
        self.add_flow(selector, writer, {("study_selected_series_list", "study_selected_series_list")})
        self.add_flow(bundle, writer, {("pred", "seg_image")})


if __name__ == "__main__":
    BundleApplication([sys.argv[0]]).run()
