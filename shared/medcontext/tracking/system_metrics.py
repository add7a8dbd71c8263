"""Load of the machine, sampled during training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

__all__ = ["SystemMonitor"]

logger = logging.getLogger(__name__)
logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it reports each start and each missing GPU


class SystemMonitor(SystemMetricsMonitor):
    """Sample processors, memory, disk, network and GPUs as MLflow does, but hand the samples over unsent.

    MLflow's own monitor asks the server after every sample whether the run is still active, and stops if the server is
    unreachable. The environment variables ``MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL``, ``…_SAMPLES_BEFORE_LOGGING`` and
    ``…_NODE_ID`` work as in MLflow.

    Args:
        publish: called in the monitor's thread with a sample by name and its number.
        first: number of the first sample.
        interval: seconds between two samples.
        kwargs: other arguments as for MLflow's monitor, such as ``run_id``.
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
        """Sample until the monitor is finished, and hand over the samples up to then."""
        try:
            while not self._shutdown_event.is_set():
                for _ in range(self.samples_before_logging):
                    self.collect_metrics()
                    if self._shutdown_event.wait(self.sampling_interval):
                        break
                self.publish_metrics(self.aggregate_metrics())
        except Exception as error:  # a driver reset, for example, must not end training
            logger.warning("The machine's load is no longer sampled: %s", error)

    def publish_metrics(self, metrics: Mapping[str, float]) -> None:
        """Hand over a sample."""
        prefix = self._metrics_prefix + (f"{self.node_id}/" if self.node_id else "")
        self._publish({f"{prefix}{name}": float(value) for name, value in metrics.items()}, self._logging_step)
        self._logging_step += 1
        for monitor in self.monitors:
            monitor.clear_metrics()
