"""Tactics of vendors' libraries. There are as many as a library has algorithms for a problem, so they have no rows: a name says which algorithm of
which version it is, and what is known of its numerics is read off the name, on any machine.

    cublaslt_130100_32f_A66_T20_S36_K1_R0_W0_C0_I0_G2    product by algorithm 66 of cuBLASLt 13.1.0
    cudnn_91900_last_E11_k2v0_k6v1_nT                    convolution by engine 11 of cuDNN 9.19.0, channels last, on tensor cores
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from probe.engine.tactics.tactic import Tactic

# compute mode -> what is promised, precisions
_MODES = {
    "32f": ("products and sums in FP32", ("fp32", "fp16", "bf16", "tf32")),
    "32fpedantic": ("products and sums in FP32, by the library's strictest algorithms", ("fp32", "fp16", "bf16", "tf32")),
    "tf32": ("products of operands rounded to TF32, sums in FP32", ("tf32",)),
    "16f": ("products and sums in FP16", ("fp16",)),
}  # fmt: skip
_FIELDS = "ATSKRWCIG"  # algorithm, tile, stages, ranges of k, reduction, swizzling, custom option, inner shape, cluster
_LT = re.compile(r"cublaslt_(\d+)_([a-z0-9]+)" + "".join(rf"_{letter}(\d+)" for letter in _FIELDS))
_DNN = re.compile(r"cudnn_(\d+)_(first|last)_E(\d+)((?:_k[1-9]\d*v-?\d+)*)_n([A-Z0-9]*)")
_KNOB = re.compile(r"_k(\d+)v(-?\d+)")

IN_PLACE, IN_FP32, IN_OUTPUT = 1, 2, 4  # how cuBLASLt adds the sums of ranges of k
_REDUCTIONS = {
    0: "",
    IN_PLACE: "added one after the other where the result is stored, in its type",
    IN_FP32: "added in the type of the sums",
    IN_OUTPUT: "rounded to the result's type and added",
}

# letters of a cuDNN name -> cuDNN's numerical note, what it says
NOTES = {
    "T": ("TENSOR_CORE", "on tensor cores"),
    "D": ("DOWN_CONVERT_INPUTS", "inputs rounded to a lower type"),
    "R": ("REDUCED_PRECISION_REDUCTION", "partial sums rounded below FP32"),
    "F": ("FFT", "by Fourier transforms"),
    "W": ("WINOGRAD", "by Winograd's algorithm"),
    "4": ("WINOGRAD_TILE_4x4", "tiles of 4 x 4"),
    "6": ("WINOGRAD_TILE_6x6", "tiles of 6 x 6"),
    "13": ("WINOGRAD_TILE_13x13", "tiles of 13 x 13"),
    "X": ("NONDETERMINISTIC", "in an order that differs from run to run"),
    "S": ("STRICT_NAN_PROP", "NaN comes through"),
}
_NOTE = re.compile("13|[A-Z0-9]")


@dataclass(frozen=True, slots=True)
class LtAlgorithm:
    """An algorithm of cuBLASLt.

    Attributes:
        version: of the library; another one numbers other algorithms.
        mode: of computing.
        config: ID, TILE_ID, STAGES_ID, SPLITK_NUM, REDUCTION_SCHEME, CTA_SWIZZLING, CUSTOM_OPTION, INNER_SHAPE_ID, CLUSTER_SHAPE_ID.
    """

    version: int
    mode: str
    config: tuple[int, ...]

    def __str__(self) -> str:
        return f"cublaslt_{self.version}_{self.mode}" + "".join(
            f"_{letter}{value}" for letter, value in zip(_FIELDS, self.config, strict=True)
        )

    @property
    def splits(self) -> int:
        """Ranges that k is cut into."""
        return max(self.config[3], 1)

    @property
    def reduction(self) -> int:
        """How sums of ranges are added."""
        return self.config[4]

    @property
    def rounds_between(self) -> bool:
        """Whether sums of ranges are rounded to the result's type before they are added."""
        return self.splits > 1 and self.reduction in (IN_PLACE, IN_OUTPUT)

    @property
    def known(self) -> bool:
        """Whether its numerics can be stated."""
        return self.mode in _MODES and self.reduction in _REDUCTIONS


@dataclass(frozen=True, slots=True)
class DnnPlan:
    """A plan of cuDNN for a convolution.

    Attributes:
        version: of the library.
        layout: order of channels: ``first`` or ``last``.
        engine: number of it.
        knobs: type and value, by type.
        notes: letters of ``NOTES``, in their order.
    """

    version: int
    layout: str
    engine: int
    knobs: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        knobs = "".join(f"_k{kind}v{value}" for kind, value in self.knobs)
        return f"cudnn_{self.version}_{self.layout}_E{self.engine}{knobs}_n{''.join(self.notes)}"


def lt_algorithm(name: str) -> LtAlgorithm | None:
    """What a name of cuBLASLt stands for; None when it is none."""
    found = _LT.fullmatch(name)
    if found is None:
        return None
    version, mode, *config = found.groups()
    made = LtAlgorithm(int(version), mode, tuple(map(int, config)))
    return made if made.known and str(made) == name else None


def dnn_plan(name: str) -> DnnPlan | None:
    """What a name of cuDNN stands for; None when it is none."""
    found = _DNN.fullmatch(name)
    if found is None:
        return None
    version, layout, engine, knobs, letters = found.groups()
    chosen = tuple((int(kind), int(value)) for kind, value in _KNOB.findall(knobs))
    made = DnnPlan(int(version), layout, int(engine), chosen, tuple(_NOTE.findall(letters)))
    known = tuple(letter for letter in NOTES if letter in made.notes)
    once = list(chosen) == sorted(dict(chosen).items())
    return made if once and known == made.notes and str(made) == name else None


def library_tactic(name: str) -> Tactic | None:
    """The tactic of a name; None when it is no library's."""
    product = lt_algorithm(name)
    if product is not None:
        return _of_product(product)
    plan = dnn_plan(name)
    return _of_plan(plan) if plan is not None else None


def _of_product(one: LtAlgorithm) -> Tactic:
    says, precisions = _MODES[one.mode]
    if one.splits > 1:
        says += f"; k in {one.splits} ranges, whose sums are {_REDUCTIONS[one.reduction] or 'added'}"
    fp16 = one.mode == "16f"
    return Tactic(
        str(one),
        f"cuBLASLt {_dotted(one.version)}, algorithm {one.config[0]}: {says}; rounded once where it is stored",
        "|error| <= k u16 max |partial sum|" if fp16 else "|error| <= k u32 S",
        "fp16" if fp16 else "fp32", "any", ("MatMul", "Gemm", "Conv"), precisions, device="cuda", layout="last",
    )  # fmt: skip


def _of_plan(one: DnnPlan) -> Tactic:
    words = [NOTES[letter][1] for letter in one.notes]
    winograd, reduced = "W" in one.notes, "R" in one.notes
    error = "|error| <= k u16 max |partial sum|" if reduced else "|error| <= k u32 S"
    return Tactic(
        str(one),
        f"cuDNN {_dotted(one.version)}, engine {one.engine}: {', '.join(['products and sums in FP32', *words])}; rounded once where it is stored",
        "not stated by the library" if winograd or "F" in one.notes else error,
        "fp16" if reduced else "fp32", "any", ("Conv",), ("fp32", "fp16", "bf16", "tf32"),
        algorithm="winograd" if winograd else "direct", tile=_outputs_of_tile(one.notes), deterministic="X" not in one.notes,
        device="cuda", layout="last" if one.layout == "last" else "first",
    )  # fmt: skip


def _outputs_of_tile(notes: tuple[str, ...]) -> int:
    """Results along each side of a Winograd tile for kernels of 3 x 3: the tile less two."""
    return next((size - 2 for letter, size in (("4", 4), ("6", 6), ("13", 13)) if letter in notes), 0)


def _dotted(version: int) -> str:
    """
    >>> _dotted(130100), _dotted(91900)
    ('13.1.0', '9.19.0')
    """
    return f"{version // 10000}.{version // 100 % 100}.{version % 100}"
