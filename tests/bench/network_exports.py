"""Six networks that people run, built by torchvision and transformers with seeded random weights, and exported by torch.onnx.

Latency does not depend on weights, so nothing is fetched. What would make numbers meaningless is put right: running statistics of batch norms
are those of a batch (else activations explode over fifty layers and leave FP16), and the head of the vision transformer is not zero.

    python tests/bench/network_exports.py FOLDER [NAME...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

OPSET = 18
SEED = 0
CALIBRATED_ON = 16  # images of the one forward pass that running statistics are taken from
BERT_WORDS, GPT2_WORDS = 30522, 50257

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Net:
    """A network at one shape of its inputs.

    Attributes:
        module: of several batches of the same network.
        build: its torch module, in FP32, ready for inference.
        inputs: seeded, by name.
        outputs: all that the export has.
        channels_last: how torch runs it fastest.
    """

    name: str
    module: str
    build: Callable[[], Any]
    inputs: Callable[[], Arrays]
    outputs: tuple[str, ...]
    channels_last: bool = False


def _images(batch: int) -> Arrays:
    return {"image": np.random.default_rng(SEED).standard_normal((batch, 3, 224, 224), dtype=np.float32)}


def _texts(batch: int, length: int) -> Arrays:
    ids = np.random.default_rng(SEED).integers(0, BERT_WORDS, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones((batch, length), np.int64)}


def _text(length: int) -> Arrays:
    return {"input_ids": np.random.default_rng(SEED).integers(0, GPT2_WORDS, (1, length))}


def _convolutional(name: str) -> Any:
    import torch
    import torchvision

    torch.manual_seed(SEED)
    module = getattr(torchvision.models, name)(weights=None)
    norms = [one for one in module.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # running statistics become those of the one batch
    with torch.no_grad():  # on the CPU: on a GPU it would be another network with TF32 than without
        module.train()(torch.from_numpy(_images(CALIBRATED_ON)["image"]))
    return module.eval()


def _vision_transformer() -> Any:
    import torch
    import torchvision

    torch.manual_seed(SEED)
    module = torchvision.models.vit_b_16(weights=None)
    torch.nn.init.normal_(module.heads.head.weight, std=0.02)  # zeros before training
    return module.eval()


def _bert() -> Any:
    import torch
    from transformers import BertConfig, BertModel

    class Bert(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = BertModel(BertConfig())

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            made = self.model(input_ids, attention_mask)
            return made.last_hidden_state, made.pooler_output

    torch.manual_seed(SEED)
    return Bert().eval()


def _gpt2() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    class Gpt2(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = GPT2LMHeadModel(GPT2Config())

        def forward(self, input_ids: Any) -> Any:
            return self.model(input_ids, use_cache=False).logits

    torch.manual_seed(SEED)
    return Gpt2().eval()


NETS = (
    Net("resnet50 b1", "resnet50", partial(_convolutional, "resnet50"), partial(_images, 1), ("logits",), True),
    Net("resnet50 b32", "resnet50", partial(_convolutional, "resnet50"), partial(_images, 32), ("logits",), True),
    Net("mobilenet_v2 b32", "mobilenet_v2", partial(_convolutional, "mobilenet_v2"), partial(_images, 32), ("logits",), True),
    Net("vit_b_16 b16", "vit_b_16", _vision_transformer, partial(_images, 16), ("logits",)),
    Net("bert-base 8x128", "bert-base", _bert, partial(_texts, 8, 128), ("last_hidden_state", "pooler_output")),
    Net("gpt2 1x256", "gpt2", _gpt2, partial(_text, 256), ("logits",)),
)  # fmt: skip


def chosen(only: str) -> list[Net]:
    """The networks whose name contains one of ``only``, comma-separated; all of them for ""."""
    return [net for net in NETS if any(part in net.name for part in only.split(","))]


def file_of(net: Net, folder: Path, *, half: bool = False) -> Path:
    return folder / f"{net.name.replace(' ', '_')}{'_half' if half else ''}.onnx"


def export(net: Net, folder: Path, *, half: bool = False) -> Path:
    """Write the network unless it is there already. ``half``: with weights, inputs and outputs in FP16, as ``module.half()`` gives them."""
    path = file_of(net, folder, half=half)
    if path.exists():
        return path
    import torch

    module = net.build()
    inputs = {name: torch.from_numpy(array) for name, array in net.inputs().items()}
    if half:
        module = module.half()
        inputs = {name: one.half() if one.is_floating_point() else one for name, one in inputs.items()}
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with torch.no_grad():
        torch.onnx.export(
            module, tuple(inputs.values()), str(part), input_names=list(inputs), output_names=list(net.outputs), opset_version=OPSET,
            dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    part.replace(path)
    return path


def golden(net: Net, folder: Path) -> Arrays:
    """What ONNX Runtime's CPU provider computes in FP32, kept beside the model."""
    import onnxruntime

    path = file_of(net, folder).with_suffix(".npz")
    if not path.exists():
        session = onnxruntime.InferenceSession(str(export(net, folder)), providers=["CPUExecutionProvider"])
        made: list[Any] = list(session.run(list(net.outputs), net.inputs()))
        part = path.with_suffix(".part.npz")
        np.savez(part, **dict(zip(net.outputs, made, strict=True)))
        part.replace(path)
    with np.load(path) as stored:
        return dict(stored)


def main(folder: str, names: Iterable[str]) -> None:
    for net in NETS:
        if not names or net.name in names:
            for half in (False, True):
                print(export(net, Path(folder), half=half))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
