"""ONNX in: load, check, expose, upcast. onnx and onnx-ir are imported when a model is read, not before."""

from probe.model.load import load
from probe.model.model import Model, NodeInfo, Port

__all__ = ["Model", "NodeInfo", "Port", "load"]
