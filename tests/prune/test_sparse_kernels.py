"""Weights of which two of four are zero are what sparse tensor cores take: needs an NVIDIA GPU."""

import numpy as np
import pytest

from onnxopt.context import Context
from onnxopt.passes import make_pass
from tests.graphs import from_text

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device with sparse tensor cores"),
]

F32 = np.float32


@pytest.mark.parametrize(("product", "shape", "turned"), [("MatMul", (128, 256), True), ("Gemm", (256, 128), False)])
def test_a_pruned_weight_is_multiplied_by_sparse_tensor_cores(product: str, shape: tuple[int, int], turned: bool):
    attribute = "" if product == "MatMul" else "<transB = 1>"
    random = np.random.default_rng(0)
    model = from_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[n, 128] x) => (float[n, 256] y) {{ y = {product} {attribute} (x, w) }}""",
        {"w": random.standard_normal(shape).astype(F32)},
    )
    pruned = make_pass("prune-n-m")(model, Context.of()).graph.graph.initializers["w"].const_value.numpy()
    weight = torch.from_numpy(np.ascontiguousarray(pruned.T if turned else pruned)).half().cuda()
    x = torch.randn(64, 128, dtype=torch.float16, device="cuda")
    made = torch.nn.functional.linear(x, torch.sparse.to_sparse_semi_structured(weight)).double()
    wanted = x.double() @ weight.double().T
    assert float((made - wanted).norm() / wanted.norm()) < 2e-3
    assert float((weight == 0).float().mean()) == 0.5
