"""A checkpoint that PyTorch wrote (tests/golden), read by us and written by us, is the same checkpoint to a reader that
shares no code with ours: so what loads PyTorch's loads ours. That PyTorch computes the same logits with it after
training is checked by hand (tests/golden/README.md), because PyTorch is too large for CI."""

import json
import os
import subprocess
import unittest

import e2e

WRITE_ROUNDTRIP = os.environ["WRITE_ROUNDTRIP"]

# Keys of transformers 5 that we write under the names that older readers know too.
RENAMED = {"num_local_experts": "num_experts", "dtype": "torch_dtype"}


def widened(tensor):
    """A bfloat16 tensor in float32, which appends zeros to the significand: norms and the router stay so in training."""
    dtype, shape, data = tensor
    assert dtype == "BF16", dtype
    out = bytearray(2 * len(data))
    out[2::4], out[3::4] = data[0::2], data[1::2]
    return "F32", shape, bytes(out)


class RoundTrip(e2e.TestCase):
    def test_tensors_and_config(self):
        for golden in sorted(e2e.GOLDEN.iterdir()):
            with self.subTest(golden.name):
                out = self.dir / golden.name
                subprocess.run([WRITE_ROUNDTRIP, golden.name, out, "0"], check=True, env=e2e.environment())
                want = e2e.read_safetensors(golden / "model.safetensors")
                got = e2e.read_safetensors(out / "model/model.safetensors")
                self.assertEqual(sorted(got), sorted(want))
                for name, tensor in got.items():
                    same = want[name] if tensor[0] == want[name][0] else widened(want[name])
                    self.assertTrue(tensor == same, f"{name}: {tensor[:2]} instead of {want[name][:2]}, or other values")
                self.compare_configs(out / "model/config.json", golden / "config.json")

    def compare_configs(self, got_path, want_path):
        got, want = (json.loads(path.read_text(encoding="utf-8")) for path in (got_path, want_path))
        self.assertEqual(got["rope_theta"], want.pop("rope_parameters", want)["rope_theta"])
        for key, value in want.items():
            if value is not None:
                self.assertEqual(got[RENAMED.get(key, key)], value, key)


if __name__ == "__main__":
    unittest.main()
