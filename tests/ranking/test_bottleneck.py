from __future__ import annotations

import torch
from monai.networks.nets import UNETR

from medcontext.ranking.bottleneck import Bottleneck


def test_the_features_are_those_of_the_coarsest_grid_of_each_window() -> None:
    network = UNETR(1, 2, (32, 32, 32), feature_size=4, hidden_size=24, mlp_dim=48, num_heads=2).eval()
    bottleneck = Bottleneck(network, 1, (32, 32, 32))
    with bottleneck.collect() as found, torch.no_grad():
        network(torch.rand(2, 1, 32, 32, 32))
    assert bottleneck.module is network.decoder5.transp_conv.conv  # what the transformer hands to the decoder
    assert [features.shape for features in found] == [(24,), (24,)]
    assert not torch.equal(found[0], found[1])
    network(torch.rand(1, 1, 32, 32, 32))
    assert len(found) == 2  # nothing is collected later
