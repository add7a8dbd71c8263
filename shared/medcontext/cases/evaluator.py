"""An evaluator that leaves failed cases out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.utils import CommonKeys, ImageMetaKey, ensure_tuple

from medcontext.cases.dataset import FAILED, reason_of
from medcontext.cases.failures import FailedCase
from medcontext.inferers import NonFinitePredictionError
from medcontext.scans import volume_name

__all__ = ["TolerantEvaluator"]

logger = logging.getLogger(__name__)

_OF_A_CASE = (NonFinitePredictionError, MemoryError, torch.OutOfMemoryError)
_NO_MEMORY = "not enough memory"  # in PyTorch's error for the CPU, which has no type of its own


class TolerantEvaluator(SupervisedEvaluator):
    """MONAI's evaluator, with an empty output for a case that failed, in its dataset or in the network.

    In the network, a case fails if its output is not finite or memory does not suffice for it; other errors end the
    run, as they are of the network rather than of the case.

    The failed cases of a run are in ``engine.state.failed_cases``, see :func:`medcontext.cases.failed_cases`.

    Args:
        args: as for :class:`monai.engines.SupervisedEvaluator`.
        kwargs: as for :class:`monai.engines.SupervisedEvaluator`; the loader gives one case at a time, of a
            :class:`medcontext.cases.TolerantDataset`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.state.failed_cases = []
        self.add_event_handler(Events.EPOCH_STARTED, self.state.failed_cases.clear)

    def _iteration(self, engine: Any, batchdata: Mapping[str, Any]) -> Any:
        """Return the output of the network for one case, or an empty list."""
        self.state.output = []  # the volumes of the last case are not kept while those of this one are made
        if FAILED in batchdata:
            return self._leave_out(FailedCase(**{key: value[0] for key, value in batchdata[FAILED].items()}))
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:
            if not (isinstance(error, _OF_A_CASE) or _NO_MEMORY in str(error)):
                raise
            image = _file_of(batchdata)
            case = str(ensure_tuple(batchdata.get("case", volume_name(image)))[0])
            return self._leave_out(FailedCase(case, image, reason_of(error, image)))

    def _leave_out(self, failed: FailedCase) -> list[Any]:
        logger.warning("left out: %s", failed.reason)
        self.state.failed_cases.append(failed)
        return []


def _file_of(batch: Mapping[str, Any]) -> str:
    files = ensure_tuple(getattr(batch[CommonKeys.IMAGE], "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, "the image"))
    return str(files[0])
