"""One step of paper.json against the method's equations written out, without the classes of this package."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.networks.nets import UNETR
from torch import Tensor

from bundle_runs import workflow_for


def unetr_on_tokens(network: UNETR, image: Tensor, mask: Tensor | None, mask_token: Tensor) -> Tensor:
    """UNETR block by block, with the tokens of masked patches replaced after the positions were added."""
    tokens = network.vit.patch_embedding(image)
    if mask is not None:
        patches = F.max_pool3d(mask, 16).flatten(1).bool()
        tokens = torch.where(patches[..., None], mask_token, tokens)
    hidden = []
    for block in network.vit.blocks:
        tokens = block(tokens)
        hidden.append(tokens)
    grid = [size // 16 for size in image.shape[2:]]
    maps = [t.transpose(1, 2).reshape(t.shape[0], -1, *grid) for t in (*hidden[3::3][:3], network.vit.norm(tokens))]
    encoded = [network.encoder1(image), network.encoder2(maps[0]), network.encoder3(maps[1]), network.encoder4(maps[2])]
    x = network.decoder5(maps[3], encoded[3])
    x = network.decoder4(x, encoded[2])
    x = network.decoder3(x, encoded[1])
    return network.out(network.decoder2(x, encoded[0]))


def dice_and_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    truth = F.one_hot(label[:, 0].long(), logits.shape[1]).movedim(-1, 1).float()
    p = logits.softmax(1)
    overlap = (p * truth).flatten(2).sum(2)
    dice = 1 - 2 * overlap / (p.square().flatten(2).sum(2) + truth.flatten(2).sum(2) + 1e-6)
    return dice.mean() + F.cross_entropy(logits, label[:, 0].long())


def test_a_step_is_that_of_the_equations(home: Path) -> None:
    workflow = workflow_for("medcontext_unetr", "train", "paper", run_name="paper", validation_cases=0, max_epochs=1)
    workflow.parser["network_def#dropout_rate"] = 0.0
    trainer = workflow.trainer
    student = copy.deepcopy(trainer.student)
    token = torch.zeros(24, requires_grad=True)
    seen: dict[str, Tensor] = {}
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=1), lambda engine: engine.terminate())
    trainer.add_event_handler(Events.ITERATION_STARTED(once=1), lambda engine: seen.update(engine.state.batch))
    gradients: dict[str, Tensor] = {}
    step = trainer._optimizer_step

    def record_and_step() -> None:
        gradients.update({n: p.grad.clone() for n, p in trainer.student.named_parameters() if p.grad is not None})
        gradients["mask_token"] = trainer.network.mask_token.grad.clone()
        step()

    trainer._optimizer_step = record_and_step
    trainer.run()

    image, label, mask = (seen[key] for key in ("image", "label", "context_mask"))
    for sample in mask:
        columns = sample[0].amax(-1)
        torch.testing.assert_close(sample[0], columns[..., None].expand_as(sample[0]))  # the same along S
        patches = columns.reshape(2, 16, 2, 16)
        assert ((patches.amin((1, 3)) == patches.amax((1, 3))).all(), patches.amax((1, 3)).sum()) == (True, 2)

    plain = unetr_on_tokens(student, image, None, token)
    masked = unetr_on_tokens(student, image, mask, token)
    with torch.no_grad():
        teacher = unetr_on_tokens(copy.deepcopy(student).eval(), image, None, token)
    loss = dice_and_cross_entropy(plain, label) + dice_and_cross_entropy(masked, label)
    loss = loss + 0.5 * (teacher - masked).square().mean() / teacher.norm()
    loss.backward()
    expected = {n: p.grad for n, p in student.named_parameters() if p.grad is not None} | {"mask_token": token.grad}
    assert gradients.keys() == expected.keys()
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-6)

    before, after = student.state_dict(), trainer.student.state_dict()
    moved = {name: 0.996 * before[name] + 0.004 * after[name] for name in before}
    torch.testing.assert_close(dict(trainer.teacher.state_dict()), moved)
