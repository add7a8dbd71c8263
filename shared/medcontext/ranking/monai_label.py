"""An app for MONAI Label: its app for bundles, which also offers the scans that are worth labelling next.

That app has a fixed list of strategies, to which a bundle can add none. This one adds the strategy ``rank``, and the
scoring method of the same name whose scores it reads.
"""

from __future__ import annotations

import logging
import sysconfig
from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.utils.others.class_utils import module_from_file

from medcontext.data.datalist import Case
from medcontext.networks.model_file import MODEL_FILE
from medcontext.ranking.rank import rank_scans
from medcontext.ranking.trained import TrainedNetwork

__all__ = ["RankingApp", "ScanRanking"]

logger = logging.getLogger(__name__)

NAME = "rank"
SCORE, STATE = "rank_score", "rank_state"


class ScanRanking(ScoringMethod):
    """Score the unlabelled scans of a datastore, see :func:`medcontext.ranking.rank_scans`.

    Scores are taken again when the weights or the labelled scans have changed.

    Args:
        ckpt_dir: folder of the weights, the bundle's own.
    """

    def __init__(self, ckpt_dir: Path) -> None:
        super().__init__("Score scans by what labelling them is expected to be worth to the bundle's network")
        self.ckpt_dir = ckpt_dir

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, int]:
        """Score all scans if a score is missing or out of date.

        Args:
            request: may hold the ``device`` to compute on.
            datastore: where the scans are, and where their scores are kept.

        Returns:
            Numbers of scans, ``total`` and ``executed``.
        """
        weights = self.ckpt_dir / MODEL_FILE
        scans, labeled = datastore.get_unlabeled_images(), datastore.get_labeled_images()
        if not weights.is_file():
            logger.warning("There is no %s yet; scans are scored once the bundle has been trained.", weights)
            return {"total": len(scans), "executed": 0}
        state = f"{weights.stat().st_mtime_ns}, {' '.join(sorted(labeled))}"
        if all(datastore.get_image_info(scan).get(STATE) == state for scan in scans):
            return {"total": len(scans), "executed": 0}
        trained = TrainedNetwork(self.ckpt_dir, request.get("device"))
        for ranked in rank_scans(trained, _cases(datastore, scans), _cases(datastore, labeled)):
            datastore.update_image_info(ranked.case["case"], {SCORE: ranked.score, STATE: state})
        return {"total": len(scans), "executed": len(scans)}


def _cases(datastore: Datastore, names: list[str]) -> list[Case]:
    return [{"case": name, "image": datastore.get_image_uri(name)} for name in names]


def _bundle_app() -> type[MONAILabelApp]:
    """Return the class of MONAI Label's app for bundles, which is installed as a file outside of its package.

    Raises:
        FileNotFoundError: If it is not where the installation of MONAI Label puts it.
    """
    path = Path(sysconfig.get_path("data"), "monailabel", "sample-apps", "monaibundle", "main.py")
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}; install monailabel into this environment.")
    return module_from_file("monailabel_monaibundle", str(path)).MyApp


class RankingApp(_bundle_app(), MONAILabelApp):  # type: ignore[misc]  # MONAI Label looks for the latter by its name
    """MONAI Label's app for bundles with the strategy and the scoring method ``rank``.

    They are those of the first of the bundles in ``--conf models``, or of that in ``--conf rank_model``.
    """

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the app's strategies and ``rank``, which offers the scan with the highest score."""
        strategies = super().init_strategies()
        return {**strategies, NAME: Epistemic(key=SCORE, desc="Get the scan that is worth most to the network")}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Return the app's scoring methods and ``rank``."""
        methods = super().init_scoring_methods()
        model = self.conf.get("rank_model") or next(iter(self.models))
        return {**methods, NAME: ScanRanking(Path(self.models[model], "models"))}
