"""Makers: each turns a file taken from a package into an ONNX model. Only these modules import torch."""
