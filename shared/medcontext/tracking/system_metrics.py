"""Load of the machine, sampled beside training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

__all__ = ["SystemMonitor"]

logger = logging.getLogger(__name__)
logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it announces each start and each missing GPU


class SystemMonitor(SystemMetricsMonitor):
    """MLflow's samples of processors, memory, disk, network and GPUs, handed on instead of sent.

    MLflow's own monitor asks the server after every sample whether the run still runs, and stops when it does not
    answer. The environment variables ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL``, ``…_SAMPLES_BEFORE_LOGGING`` and
    ``…_NODE_ID`` work as with MLflow.

    Args:
        publish: called in the monitor's thread with a sample by name and its number.
        first: number of the first sample.
        kwargs: what else MLflow's monitor takes, such as ``sampling_interval`` in seconds.
    """

    def __init__(
        self,
        publish: Callable[[Mapping[str, float], int], None],
        *,
        first: int = 0,
        interval: float = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(sampling_interval=interval, **kwargs)
        self._publish = publish
        self._logging_step = first

    def monitor(self) -> None:
        """Sample until told to finish; what was sampled by then is handed on too."""
        try:
            while not self._shutdown_event.is_set():
                for _ in range(self.samples_before_logging):
                    self.collect_metrics()
                    if self._shutdown_event.wait(self.sampling_interval):
                        break
                self.publish_metrics(self.aggregate_metrics())
        except Exception as error:  # a driver that is reset must not end training
            logger.warning("The machine's load is not sampled any more: %s", error)

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        """Hand on a sample."""
        prefix = self._metrics_prefix + (f"{self.node_id}/" if self.node_id else "")
        self._publish({f"{prefix}{name}": float(value) for name, value in metrics.items()}, self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()
