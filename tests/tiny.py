"""A network, data and objective small enough to train within milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch import nn

from medcontext.engines import MedContextTrainer
from medcontext.losses import ConsistencyLoss, MedContextLoss
from medcontext.networks import make_teacher


class TinyNet(nn.Module):
    """Two convolutions, normalised per sample so that batched and separate passes agree."""

    def __init__(self, deep_supervision: bool = False) -> None:
        super().__init__()
        self.embed = nn.Conv3d(1, 6, 2, stride=2)
        self.norm = nn.InstanceNorm3d(6, affine=True)
        self.up = nn.ConvTranspose3d(6, 3, 2, stride=2)
        self.low = nn.Conv3d(6, 3, 1)
        self.deep_supervision = deep_supervision

    def forward(self, x: torch.Tensor) -> Any:
        tokens = self.norm(self.embed(x)).tanh()
        full = self.up(tokens)
        return [full, self.low(tokens)] if self.deep_supervision and self.training else full


def batches(count: int = 4, batch_size: int = 2) -> DataLoader:
    torch.manual_seed(1)
    items = []
    for _ in range(count * batch_size):
        image, mask = torch.randn(1, 4, 4, 4), (torch.rand(1, 4, 4, 4) > 0.5).float()
        label = torch.randint(0, 3, (1, 4, 4, 4)).float()
        items.append({"image": image, "label": label, "masked_image": image * (1 - mask), "context_mask": mask})
    return DataLoader(Dataset(items), batch_size=batch_size)


def mixed_batches(count: int = 4, batch_size: int = 2) -> list[dict[str, torch.Tensor]]:
    """Batches whose first crop is whole, with as many unlabelled crops as labelled ones."""
    found = []
    for batch in batches(count, batch_size):
        batch["context_mask"][0], batch["masked_image"][0] = 0, batch["image"][0]
        weak = torch.randn(batch["image"].shape)
        found.append({**batch, "unlabeled_image": weak, "unlabeled_strong": weak + torch.randn(weak.shape)})
    return found


def objective(deep_supervision: bool = False) -> MedContextLoss:
    segmentation = DiceCELoss(to_onehot_y=True, softmax=True)
    if deep_supervision:
        segmentation = DeepSupervisionLoss(segmentation, weights=[4 / 7, 2 / 7])
    return MedContextLoss(segmentation, ConsistencyLoss("relative"), context_weight=0.7, consistency_weight=0.3)


def trainer(
    network: nn.Module | None = None, *, epochs: int = 1, loader: Any = None, **kwargs: Any
) -> MedContextTrainer:
    torch.manual_seed(0)
    network = TinyNet() if network is None else network
    kwargs.setdefault("teacher", make_teacher(network))
    return MedContextTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=batches() if loader is None else loader,
        network=network,
        optimizer=kwargs.pop("optimizer", None) or torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=kwargs.pop("loss_function", None) or objective(),
        **kwargs,
    )
