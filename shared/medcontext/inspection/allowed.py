"""What configurations of bundles may name: modules, components, functions and methods without effects beyond a run."""

from __future__ import annotations

__all__ = ["BUILTINS", "COMPONENTS", "ENVIRONMENT", "LOG_HANDLERS", "METHODS", "MODULES", "NAMES"]

MODULES = frozenset({"ignite", "json", "math", "medcontext", "monai", "numpy", "torch"})
"""Packages that a configuration may import, with their modules."""

COMPONENTS = (
    *("ignite.handlers.", "ignite.metrics.", "torch.nn.", "torch.optim."),
    *(f"monai.{room}." for room in ("data", "engines", "handlers", "inferers", "losses", "metrics", "networks")),
    *("monai.optimizers.", "monai.transforms."),
    *(f"medcontext.{room}." for room in ("cases", "data", "engines", "handlers", "inferers", "losses", "metrics")),
    *(f"medcontext.{room}." for room in ("networks", "scans", "transforms")),
    "medcontext.tracking.MLflowTracker",
)
"""Beginnings of the names of components, in ``_target_``."""

NAMES = frozenset(
    [
        *("ignite.distributed.get_rank", "ignite.distributed.get_world_size", "medcontext.__version__"),
        *("medcontext.bundle.checkpoint_run", "medcontext.bundle.current_workflow", "medcontext.bundle.find_home"),
        *("medcontext.bundle.find_root", "medcontext.bundle.has_training_state", "medcontext.bundle.hyperparameters"),
        *("medcontext.bundle.largest_components", "medcontext.bundle.latest_run", "medcontext.bundle.model_settings"),
        *("medcontext.bundle.model_to_log", "medcontext.bundle.name", "medcontext.bundle.new_run_name"),
        *("medcontext.bundle.prepare", "medcontext.bundle.run", "medcontext.bundle.run_folder"),
        *("medcontext.bundle.trained_intensity", "medcontext.bundle.trained_settings", "medcontext.bundle.version"),
        *("medcontext.data.SeededDataset", "medcontext.data.btcv_labels", "medcontext.data.count_classes"),
        *("medcontext.data.data_hash", "medcontext.data.describe_cases", "medcontext.data.label_mapping"),
        *("medcontext.data.list_images", "medcontext.data.load_cases", "medcontext.data.load_unlabeled"),
        *("medcontext.data.pair_unlabeled", "medcontext.data.sided_axes", "medcontext.data.sided_labels"),
        *("medcontext.data.start_loader", "medcontext.data.synapse_organs", "medcontext.data.unannotated_labels"),
        *("medcontext.handlers.RunFacts", "medcontext.handlers.write_step", "medcontext.labels.component_ids"),
        *("medcontext.inferers.flip_axes", "medcontext.losses.deep_supervision_weights"),
        "medcontext.losses.partial_loss",
        *("medcontext.networks.MeanEnsemble", "medcontext.networks.load_networks"),
        *("medcontext.networks.load_pretrained", "medcontext.networks.make_teacher"),
        *("medcontext.networks.prepare_network", "medcontext.reliability.unseen_cases"),
        *("medcontext.report.checkpoint_sha256", "medcontext.report.evaluation_dir"),
        *("medcontext.report.selected_weights", "medcontext.report.training_settings"),
        *("medcontext.tracking.resolve_tracking_uri", "medcontext.transforms.BatchOrganDropout"),
        *("medcontext.transforms.RandOrganDropoutd", "medcontext.transforms.rotation_range"),
        *("monai.handlers.from_engine", "monai.utils.path_to_sqlite_uri", "monai.utils.set_determinism"),
        *("torch.cuda.is_available", "torch.cuda.set_device", "torch.device", "torch.distributed.barrier"),
        *("torch.distributed.destroy_process_group", "torch.distributed.init_process_group", "torch.tensor"),
        *("torch.float16", "torch.float32", "torch.bfloat16", "torch.long", "math.ceil", "math.floor"),
    ]
)
"""Functions and values of modules, in expressions."""

BUILTINS = frozenset(
    [
        *("abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "len", "list", "max", "min"),
        *("next", "range", "reversed", "round", "set", "slice", "sorted", "str", "sum", "tuple", "zip"),
    ]
)

METHODS = frozenset(
    [
        *("endswith", "get", "items", "join", "keys", "lower", "parameters", "removeprefix", "removesuffix"),
        *("replace", "split", "startswith", "strip", "to", "upper", "values"),
    ]
)
"""Methods of what expressions refer to."""

ENVIRONMENT = "__import__('os').environ"
"""How a configuration reads a variable of the environment."""

LOG_HANDLERS = frozenset({"StreamHandler", "logging.StreamHandler"})
"""Classes of handlers in ``logging.conf``."""
