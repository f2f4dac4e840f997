"""The digest: equal for equal models however they are stored, different for every change that matters."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxopt.ir.digest import tensor_digest
from onnxopt.ir.model import Model, normalise
from onnxopt.ir.read import read_model
from onnxopt.ir.write import write_model
from tests.graphs import cnn, from_text, mlp

SETTINGS = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _model(proto: onnx.ModelProto) -> Model:
    graph = onnx_ir.from_proto(proto)
    normalise(graph)
    return Model(graph)


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


# Random models: a chain of elementwise nodes, Ifs and Loops, each of which may hold another chain.


def _value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [2])


class _Maker:
    """Builds a model from a seed; every name is new, so that branches may read whatever is outside them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.weights: list[onnx.TensorProto] = []
        self.names = 0

    def name(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def model(self) -> onnx.ModelProto:
        nodes, result = self.chain(["x"], depth=0)
        nodes.append(helper.make_node("Identity", [result], ["y"]))
        inputs = [_value("x"), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
        trips = helper.make_tensor("trips", TensorProto.INT64, [], [2])
        graph = helper.make_graph(nodes, "made", inputs, [_value("y")], [trips, *self.weights])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def chain(self, visible: list[str], depth: int) -> tuple[list[onnx.NodeProto], str]:
        nodes, visible = [], list(visible)
        for _ in range(self.random.randint(1, 4)):
            kinds = [self.unary, self.weighted, self.constant] + ([self.branch, self.loop] if depth < 2 else [])
            made = self.random.choice(kinds)(visible, depth)
            nodes.extend(made)
            visible.append(made[-1].output[0])
        return nodes, visible[-1]

    def unary(self, visible: list[str], depth: int) -> list[onnx.NodeProto]:
        return [helper.make_node("Elu", [self.random.choice(visible)], [self.name()], alpha=self.random.random())]

    def weighted(self, visible: list[str], depth: int) -> list[onnx.NodeProto]:
        weight = helper.make_tensor(self.name(), TensorProto.FLOAT, [2], [self.random.random(), 1.0])
        self.weights.append(weight)
        return [helper.make_node("Add", [self.random.choice(visible), weight.name], [self.name()])]

    def constant(self, visible: list[str], depth: int) -> list[onnx.NodeProto]:
        tensor = helper.make_tensor("", TensorProto.FLOAT, [2], [self.random.random(), 1.0])
        constant = helper.make_node("Constant", [], [self.name()], value=tensor)
        return [constant, helper.make_node("Mul", [self.random.choice(visible), constant.output[0]], [self.name()])]

    def branch(self, visible: list[str], depth: int) -> list[onnx.NodeProto]:
        def graph() -> onnx.GraphProto:
            nodes, result = self.chain(visible, depth + 1)
            return helper.make_graph(nodes, self.name(), [], [_value(result)])

        return [helper.make_node("If", ["flag"], [self.name()], then_branch=graph(), else_branch=graph())]

    def loop(self, visible: list[str], depth: int) -> list[onnx.NodeProto]:
        count, before, state, after = (self.name() for _ in range(4))
        nodes, result = self.chain([*visible, state], depth + 1)
        nodes.insert(0, helper.make_node("Identity", [before], [after]))
        scalar = [helper.make_tensor_value_info(count, TensorProto.INT64, [])]
        flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in (before, after)]
        body = helper.make_graph(nodes, self.name(), [*scalar, flags[0], _value(state)], [flags[1], _value(result)])
        return [helper.make_node("Loop", ["trips", "flag", self.random.choice(visible)], [self.name()], body=body)]


PROTOS = st.integers(0, 1 << 32).map(lambda seed: _Maker(seed).model())


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    below = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [graph, *(one for inner in below for one in _graphs(inner))]


@SETTINGS
@given(PROTOS)
def test_made_models_are_valid(proto: onnx.ModelProto) -> None:
    onnx.checker.check_model(proto)


@SETTINGS
@given(proto=PROTOS)
def test_survives_files(proto: onnx.ModelProto, tmp_path: Path) -> None:
    model = _model(proto)

    (inline,) = write_model(model, tmp_path / "inline.onnx")
    external, _ = write_model(model, tmp_path / "external.onnx", external_above=0)

    assert read_model(inline).digest == read_model(external).digest == model.digest


@SETTINGS
@given(PROTOS, st.randoms())
def test_order_of_initializers_does_not_count(proto: onnx.ModelProto, shuffle: random.Random) -> None:
    other = _copy(proto)
    weights = list(other.graph.initializer)
    shuffle.shuffle(weights)
    del other.graph.initializer[:]
    other.graph.initializer.extend(weights)

    assert _model(other).digest == _model(proto).digest


@SETTINGS
@given(PROTOS)
def test_storage_does_not_count(proto: onnx.ModelProto) -> None:
    other = _copy(proto)
    tensors = [*other.graph.initializer]
    for graph in _graphs(other.graph):
        tensors += [a.t for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    for tensor in tensors:
        assert not tensor.HasField("raw_data")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
        assert tensor.HasField("raw_data")

    assert _model(other).digest == _model(proto).digest


@SETTINGS
@given(PROTOS, st.data())
def test_an_attribute_counts_wherever_it_is(proto: onnx.ModelProto, data: st.DataObject) -> None:
    other = _copy(proto)
    nodes = [node for graph in _graphs(other.graph) for node in graph.node if node.op_type in ("Elu", "Constant")]
    assume(nodes)
    attribute = data.draw(st.sampled_from(nodes)).attribute[0]
    if attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = float(np.nextafter(np.float32(attribute.f), np.float32(9)))
    else:
        attribute.t.float_data[0] = float(np.nextafter(np.float32(attribute.t.float_data[0]), np.float32(9)))

    assert _model(other).digest != _model(proto).digest


@SETTINGS
@given(PROTOS, st.data())
def test_an_operator_counts_wherever_it_is(proto: onnx.ModelProto, data: st.DataObject) -> None:
    other = _copy(proto)
    nodes = [node for graph in _graphs(other.graph) for node in graph.node if node.op_type in ("Add", "Mul", "Elu")]
    assume(nodes)
    node = data.draw(st.sampled_from(nodes))
    node.op_type = {"Add": "Sub", "Mul": "Div", "Elu": "Celu"}[node.op_type]

    assert _model(other).digest != _model(proto).digest


# One change of a known model


def _one_ulp(proto: onnx.ModelProto) -> None:
    weight = proto.graph.initializer[0]
    array = numpy_helper.to_array(weight).copy()
    array.flat[0] = np.nextafter(array.flat[0], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def _negative_zero(proto: onnx.ModelProto) -> None:
    weight = proto.graph.initializer[1]
    weight.CopyFrom(numpy_helper.from_array(-np.zeros(6, np.float32), weight.name))


def _double(proto: onnx.ModelProto) -> None:
    weight = proto.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float64), weight.name))


def _transpose(proto: onnx.ModelProto) -> None:
    weight = proto.graph.initializer[0]
    weight.dims[:] = [6, 3, 9, 1]


def _edge(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].input[1], proto.graph.node[1].input[2] = "shift", "scale"


def _output_name(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = proto.graph.node[-1].output[0] = "points"


def _input_shape(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _dimension_name(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"


def _output_type(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].ints[3] = 2


def _attribute_gone(proto: onnx.ModelProto) -> None:
    del proto.graph.node[0].attribute[:]


def _opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 18


def _ir_version(proto: onnx.ModelProto) -> None:
    proto.ir_version = 9


def _metadata(proto: onnx.ModelProto) -> None:
    proto.metadata_props.add(key="author", value="me")


def _optional_output(proto: onnx.ModelProto) -> None:
    proto.graph.node[2].output.append("more")


def _weight_as_input(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("shift", TensorProto.FLOAT, [6]))


CHANGES: list[Callable[[onnx.ModelProto], None]] = [
    _one_ulp,
    _negative_zero,
    _double,
    _transpose,
    _edge,
    _output_name,
    _input_shape,
    _dimension_name,
    _output_type,
    _attribute,
    _attribute_gone,
    _opset,
    _ir_version,
    _metadata,
    _optional_output,
    _weight_as_input,
]


def test_every_change_counts() -> None:
    base = onnx_ir.to_proto(cnn().graph)
    base.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.zeros(6, np.float32), "scale"))
    digests = {"": _model(base).digest}
    for change in CHANGES:
        other = _copy(base)
        change(other)
        digests[change.__name__] = _model(other).digest

    assert len(set(digests.values())) == len(digests)


def _doc_strings(proto: onnx.ModelProto) -> None:
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "words"


def _producer(proto: onnx.ModelProto) -> None:
    proto.producer_name, proto.producer_version, proto.domain, proto.model_version = "me", "2", "org.me", 3


def _tensor_names(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].doc_string = "words"


def _value_info(proto: onnx.ModelProto) -> None:
    proto.graph.value_info.append(helper.make_tensor_value_info("c1", TensorProto.FLOAT, ["batch", 6, 8, 8]))


@pytest.mark.parametrize("change", [_doc_strings, _producer, _tensor_names, _value_info])
def test_what_does_not_count(change: Callable[[onnx.ModelProto], None]) -> None:
    base = onnx_ir.to_proto(cnn().graph)
    other = _copy(base)
    change(other)

    assert other != base
    assert _model(other).digest == _model(base).digest


def test_metadata_counts_in_any_order() -> None:
    digests = set()
    for keys in (("a", "b"), ("b", "a")):
        proto = onnx_ir.to_proto(mlp().graph)
        for key in keys:
            proto.metadata_props.add(key=key, value=key)
        digests.add(_model(proto).digest)

    assert len(digests) == 1


def test_metadata_is_framed() -> None:
    digests = set()
    for opsets, metadata in (
        ({"": 17}, {"a=b": "c"}),
        ({"": 17}, {"a": "b=c"}),
        ({"": 17}, {"me": "1"}),
        ({"": 17, "me": 1}, {}),
    ):
        proto = onnx_ir.to_proto(mlp().graph)
        helper.set_model_props(proto, metadata)
        del proto.opset_import[:]
        proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in opsets.items())
        digests.add(_model(proto).digest)

    assert len(digests) == 4


def test_a_shape_without_a_type_does_not_count() -> None:
    """No file can hold one, so a model read again would have another digest."""
    digests = set()
    for shape in (None, onnx_ir.Shape([2])):
        graph = mlp().graph.clone()
        graph.graph.outputs[0].type, graph.graph.outputs[0].shape = None, shape
        digests.add(Model(graph).digest)

    assert len(digests) == 1


def test_functions_count() -> None:
    def digest(body: str) -> str:
        return from_text(
            f"""<ir_version: 8, opset_import: ["" : 17, "me" : 1]>
            g (float[2] x) => (float[2] y) {{ y = me.F (x) }}
            <domain: "me", opset_import: ["" : 17]> F (a) => (b) {{ b = {body} }}"""
        ).digest

    assert len({digest("Relu (a)"), digest("Abs (a)"), digest("Elu <alpha = 2.0> (a)")}) == 3


def test_names_cannot_run_into_each_other() -> None:
    def digest(first: str, second: str) -> str:
        return from_text(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            g (float[2] {first}, float[2] {second}) => (float[2] y) {{ y = Add ({first}, {second}) }}"""
        ).digest

    assert digest("ab", "c") != digest("a", "bc")


# Tensors


@pytest.mark.parametrize("name", ["float32", "float16", "float64", "int8", "uint16", "int64", "bool"])
def test_tensor_of_every_type_and_layout(name: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(name)
    digest = tensor_digest(onnx_ir.tensor(array))

    assert digest == tensor_digest(onnx_ir.tensor(np.asfortranarray(array)))
    assert digest == tensor_digest(onnx_ir.from_proto(numpy_helper.from_array(array)))
    assert digest != tensor_digest(onnx_ir.tensor(array.reshape(3, 2)))
    assert digest != tensor_digest(onnx_ir.tensor(array[::-1]))


def test_types_of_the_same_bytes_differ() -> None:
    bits = np.array([1, 2], np.uint16)
    kinds = (onnx_ir.DataType.FLOAT16, onnx_ir.DataType.BFLOAT16)

    digests = {tensor_digest(onnx_ir.Tensor(bits.view(kind.numpy()), dtype=kind)) for kind in kinds}
    assert len({*digests, tensor_digest(onnx_ir.tensor(bits))}) == 3


def test_strings_are_framed() -> None:
    digests = {tensor_digest(onnx_ir.tensor(np.array(words))) for words in (["ab", "c"], ["a", "bc"], ["abc", ""])}

    assert len(digests) == 3
    assert tensor_digest(onnx_ir.StringTensor([b"ab", b"c"], shape=onnx_ir.Shape([2]))) in digests
