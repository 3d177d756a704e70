"""The graph that the engine works on, and its ONNX form: what onnx.proto says as objects that know each other.

onnx-ir has the same objects. It is not used here: importing it takes longer than everything else a build does (it brings sympy, 470
modules, for arithmetic on symbolic extents, which nothing here asks for), and walking its objects took a fifth of compiling.
"""

from probe.ir.attributes import Attr as Attr
from probe.ir.attributes import Attributes as Attributes
from probe.ir.attributes import AttrInt64s as AttrInt64s
from probe.ir.attributes import TypeAndShape as TypeAndShape
from probe.ir.attributes import attribute as attribute
from probe.ir.graph import Graph as Graph
from probe.ir.graph import Model as Model
from probe.ir.graph import Node as Node
from probe.ir.graph import Usage as Usage
from probe.ir.graph import Value as Value
from probe.ir.graph import bodies_of as bodies_of
from probe.ir.graph import node as node
from probe.ir.read import NotReadable as NotReadable
from probe.ir.read import read_model as read_model
from probe.ir.read import read_node as read_node
from probe.ir.read import read_shape as read_shape
from probe.ir.read import read_tensor as read_tensor
from probe.ir.read import read_type as read_type
from probe.ir.tensors import ArrayTensor as ArrayTensor
from probe.ir.tensors import ExternalTensor as ExternalTensor
from probe.ir.tensors import LazyTensor as LazyTensor
from probe.ir.tensors import Tensor as Tensor
from probe.ir.tensors import strings_of as strings_of
from probe.ir.tensors import tensor as tensor
from probe.ir.types import AttributeType as AttributeType
from probe.ir.types import DataType as DataType
from probe.ir.types import OptionalType as OptionalType
from probe.ir.types import SequenceType as SequenceType
from probe.ir.types import Shape as Shape
from probe.ir.types import SparseTensorType as SparseTensorType
from probe.ir.types import SymbolicDim as SymbolicDim
from probe.ir.types import TensorType as TensorType
from probe.ir.types import Type as Type
from probe.ir.write import attribute_proto as attribute_proto
from probe.ir.write import model_proto as model_proto
from probe.ir.write import node_proto as node_proto
from probe.ir.write import tensor_proto as tensor_proto
from probe.ir.write import type_proto as type_proto
from probe.ir.write import value_proto as value_proto
