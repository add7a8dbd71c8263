from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from monai.networks.nets import UNETR

from medcontext.networks import TokenMasking, load_weights
from medcontext.networks.published.convert import convert_checkpoint, describe_conversion

SIZE = (32, 32, 32)


def unetr(seed: int, **changes: int) -> UNETR:
    torch.manual_seed(seed)
    return UNETR(1, 3, SIZE, **{"feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2, **changes}).eval()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    state = {key: tensor for key, tensor in unetr(0).state_dict().items() if ".norm_cross_attn." not in key}
    published = {key.removeprefix("vit."): tensor for key, tensor in state.items()}
    torch.save({"state_dict": {**published, "mask_token": torch.ones(1, 1, 24)}}, tmp_path / "student.pt")
    return tmp_path / "student.pt"


def test_what_is_written_is_the_published_network(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "models" / "model.pt"
    report = convert_checkpoint(source, unetr(1), output)
    image = torch.randn(1, 1, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(load_weights(unetr(2), output)(image), unetr(0)(image), rtol=0, atol=0)
    assert describe_conversion(report, source).splitlines() == [
        f"{source} (SHA-256 {hashlib.sha256(source.read_bytes()).hexdigest()})",
        f"{len(report.loaded)} tensors loaded, 0 index tables verified",
        "1 not in the network, ignored: mask_token",
        "24 not in the checkpoint and not needed: vit.blocks.*.norm_cross_attn.weight (12), "
        "vit.blocks.*.norm_cross_attn.bias (12)",
        "The mask token is part of token masking, not of the network, and is left out.",
    ]


def test_of_a_wrapped_network_the_plain_weights_are_written(source: Path, tmp_path: Path) -> None:
    report = convert_checkpoint(source, TokenMasking(unetr(1), "vit.patch_embedding", (1, *SIZE)), tmp_path / "x.pt")
    load_weights(unetr(2), tmp_path / "x.pt")
    assert "mask token" not in describe_conversion(report, source)


def test_a_part_of_the_network_if_asked_for(source: Path, tmp_path: Path) -> None:
    state = torch.load(source)["state_dict"]
    del state["out.conv.conv.bias"]
    torch.save(state, source)
    with pytest.raises(ValueError, match="holds nothing for out.conv.conv.bias.* With strict=False they keep"):
        convert_checkpoint(source, unetr(1), tmp_path / "x.pt")
    report = convert_checkpoint(source, unetr(1), tmp_path / "x.pt", strict=False)
    assert describe_conversion(report, source).endswith("hold random values until they are trained.")
    written = torch.load(tmp_path / "x.pt")
    assert torch.equal(written["out.conv.conv.bias"], unetr(1).out.conv.conv.bias)
    assert torch.equal(written["out.conv.conv.weight"], unetr(0).out.conv.conv.weight)


def test_mistakes_leave_no_file(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.pt"
    with pytest.raises(ValueError, match=r"It was trained with hidden_size 24 \(here 36\)"):
        convert_checkpoint(source, unetr(1, hidden_size=36), output)
    with pytest.raises(ValueError, match="strict must be True or False, got 'false'"):
        convert_checkpoint(source, unetr(1), output, strict="false")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="There is no checkpoint .*absent.pt"):
        convert_checkpoint(tmp_path / "absent.pt", unetr(1), output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student.pt"]


def test_an_existing_file_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("mine")
    with pytest.raises(FileExistsError, match="model.pt exists; choose another output"):
        convert_checkpoint(source, unetr(1), tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_text() == "mine"
