"""Which operators only move data, and which of their inputs are no data at all: what the engine rounds by and conversion casts by."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

    from probe import ir

STANDARD = ("", "ai.onnx")  # how models write the standard's own domain

MOVEMENT = frozenset(
    """
    Reshape Transpose Squeeze Unsqueeze Flatten Slice Concat Split Gather GatherElements GatherND Expand Tile Identity Dropout Pad
    DepthToSpace SpaceToDepth ReverseSequence ScatterElements ScatterND Scatter TensorScatter Trilu Compress CenterCropPad
    ConcatFromSequence SequenceAt SequenceConstruct SequenceEmpty SequenceInsert SequenceErase SplitToSequence Optional OptionalGetElement
    """.split()
)

# Float inputs that are parameters of a shape or of a quantised format, not data: they keep their type.
PARAMETERS = {
    "Resize": (1, 2),
    "Upsample": (1,),
    "QuantizeLinear": (1,),
    "DequantizeLinear": (1,),
    "NonMaxSuppression": (3, 4),
    "OneHot": (1,),
    "Dropout": (1,),
}

TYPE_ONLY = frozenset(("Shape", "Size"))  # they look at an input's extents, not at its values

# Inputs that say how large something is.
SHAPES: dict[str, tuple[int, ...]] = {
    "Reshape": (1,), "Expand": (1,), "ConstantOfShape": (0,), "Tile": (1, 2), "Slice": (1, 2, 3, 4), "Pad": (1, 3), "Resize": (2, 3),
    "Upsample": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Split": (1,), "SplitToSequence": (1,), "TopK": (1,), "OneHot": (1,),
    "Loop": (0,), "CenterCropPad": (1,), "Col2Im": (1, 2), "AffineGrid": (1,), "MaxUnpool": (2,),
}  # fmt: skip


def is_standard(node: ir.Node | onnx_ir.Node) -> bool:
    """Whether a node's operator is one of the ONNX standard's own."""
    return node.domain in STANDARD


def is_movement(node: ir.Node | onnx_ir.Node) -> bool:
    """Whether a node hands on values unchanged, so that it takes its inputs' type. Padding with a stored value counts, and resizing to the
    nearest element; scattering that adds or multiplies does not."""
    if not is_standard(node):
        return False
    if node.op_type.startswith("Scatter"):
        return node.attributes.get_string("reduction", "none") == "none"
    if node.op_type in ("Resize", "Upsample"):
        return node.attributes.get_string("mode", "nearest") == "nearest"
    return node.op_type in MOVEMENT


def parameters(node: ir.Node | onnx_ir.Node) -> tuple[int, ...]:
    """Positions of the float inputs that are no data."""
    return PARAMETERS.get(node.op_type, ()) if is_standard(node) else ()


def shape_inputs(node: ir.Node | onnx_ir.Node) -> tuple[int, ...]:
    """Positions of the inputs that say how large something is."""
    return SHAPES.get(node.op_type, ()) if is_standard(node) else ()
