"""moge sim decode, prefill, train, calibrate and moge search: the JSON contract, and every kind of bad input."""

import json
import math
import os
import unittest

from e2e import BAD_FILE, OK, OUT_OF_MEMORY, ROOT, USAGE, ProgramTestCase, moge

MODEL, A2, DUO = "pangu-pro-moe-72b-a16b", "ascend-800i-a2", "ascend-300i-duo"
MOGE_ON_A2 = ("--model", MODEL, "--hardware", A2)
ROWS = ROOT / "configs/sim/rows.toml"

SPACE = """base = "pangu-pro-moe-72b-a16b"
shared_experts = 4
hidden_size = [5120]
num_hidden_layers = [48, 52]
num_attention_heads = [40]
num_key_value_heads = [8]
num_experts = [64]
moe_intermediate_size = { min = 1280, max = 1408, step = 64 }
parameters = { min = 60e9, max = 80e9 }
"""


def numbers(value):
    """Every number in a JSON value."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return [value] if isinstance(value, (int, float)) else []
    return [n for item in value for n in numbers(item)]


class Sim(ProgramTestCase):
    def answer(self, *args):
        """What the command says with --json, all of whose numbers must be finite."""
        result = self.run_json(*args)
        self.assertTrue(all(math.isfinite(n) for n in numbers(result)))
        return result

    def test_compare(self):
        """The runs that are kept, by the operators that are kept."""
        runs = sorted((ROOT / "bench/gpu/runs").glob("h200-sxm-*.json"))
        self.assertGreaterEqual(len(runs), 3)
        flags = [flag for run in runs for flag in ("--run", run)]
        result = self.answer("sim", "compare", "--hardware", "h200-sxm", *flags)
        for run in result["runs"]:
            self.assertLess(abs(run["error"]), 0.08, run["run"])
            self.assertLess(run["mean_op_error"], 0.05, run["run"])
            self.assertTrue({"op", "measured_ms", "predicted_ms", "error", "basis"} <= run["ops"][0].keys())
        measured = self.answer("sim", "decode", "--model", MODEL, "--hardware", "h200-sxm", "--kv", "int8")
        self.assertIn("measured", {op["basis"] for op in measured["breakdown"]})
        formula = self.answer("sim", "decode", "--model", MODEL, "--hardware", "h200-sxm", "--ops", "none")
        self.assertEqual({op["basis"] for op in formula["breakdown"]}, {"formula"})
        broken = self.file("run.json", runs[0].read_text().replace('"device"', '"gadget"'))
        self.assert_fails(BAD_FILE, ["device"], "sim", "compare", "--hardware", "h200-sxm", "--run", broken)
        self.assert_fails(BAD_FILE, ["no-such"], "sim", "compare", "--hardware", "h200-sxm", "--run", "no-such.json")
        self.assert_fails(USAGE, ["--run"], "sim", "compare", "--hardware", "h200-sxm")

    def test_contract(self):
        decode = self.answer("sim", "decode", *MOGE_ON_A2, "--cards", "4", "--batch", "64", "--context", "2048")
        for key in ("latency_ms", "tokens_per_s_per_card", "plan", "memory_gib_per_device", "breakdown"):
            self.assertIn(key, decode)
        self.assertTrue(all({"op", "ms", "bound"} <= op.keys() for op in decode["breakdown"]))
        self.assertAlmostEqual(sum(op["ms"] for op in decode["breakdown"]), decode["latency_ms"], places=6)
        self.assertAlmostEqual(decode["tokens_per_s_per_card"], 64 / decode["latency_ms"] * 1e3 / 4, places=6)
        drafts = self.answer("sim", "decode", *MOGE_ON_A2, "--cards", "4", "--batch", "64", "--mtp", "1,0.7")
        self.assertGreater(drafts["latency_ms"], decode["latency_ms"])
        self.assertAlmostEqual(drafts["tokens_per_s_per_card"], 64 * 1.7 / drafts["latency_ms"] * 1e3 / 4, places=6)
        prefill = self.answer("sim", "prefill", *MOGE_ON_A2, "--cards", "2", "--batch", "2", "--input", "2048")
        self.assertAlmostEqual(prefill["tokens_per_s_per_card"], 4096 / prefill["latency_ms"] * 1e3 / 2, places=6)
        # A card of two chips: throughput is per card.
        duo = self.answer("sim", "decode", "--model", MODEL, "--hardware", DUO, "--cards", "4", "--batch", "8")
        self.assertEqual(duo["devices"], 8)
        self.assertAlmostEqual(duo["tokens_per_s_per_card"], 8 / duo["latency_ms"] * 1e3 / 4, places=6)

    def test_an_answers_plan_can_be_given_back(self):
        best = self.answer("sim", "decode", *MOGE_ON_A2, "--cards", "8", "--batch", "200", "--plan", "best")
        again = self.answer("sim", "decode", *MOGE_ON_A2, "--cards", "8", "--batch", "200", "--plan",
                            self.file("answer.json", json.dumps(best)))
        self.assertEqual(again["plan"], best["plan"])
        self.assertEqual(again["latency_ms"], best["latency_ms"])
        h2p = self.answer("sim", "decode", *MOGE_ON_A2, "--cards", "8", "--batch", "200", "--plan", "report-h2p")
        self.assertGreaterEqual(h2p["latency_ms"], best["latency_ms"])

    def test_what_does_not_fit_says_by_how_much(self):
        run = moge("sim", "decode", *MOGE_ON_A2, "--cards", "4", "--batch", "5000", "--json")
        self.assertEqual(run.returncode, OK)
        self.assertFalse(json.loads(run.stdout)["fits"])
        self.assertIn(b"GiB more than its", run.stderr)
        self.assert_fails(OUT_OF_MEMORY, ["GiB more than its 63"], "sim", "decode", *MOGE_ON_A2, "--slo-tpot-ms", "50")
        self.assert_fails(USAGE, ["ms more than the objective of 5 ms"], "sim", "decode", *MOGE_ON_A2, "--cards", "4",
                   "--slo-tpot-ms", "5")

    def test_objective_finds_the_batch(self):
        found = self.answer("sim", "decode", *MOGE_ON_A2, "--cards", "4", "--slo-tpot-ms", "50")
        self.assert_fails(USAGE, ["without --batch"], "sim", "decode", *MOGE_ON_A2, "--batch", "8", "--slo-tpot-ms", "50")
        self.assertLessEqual(found["latency_ms"], 50)
        self.assertEqual(found["batch_limit"], "tpot")
        more = self.answer("sim", "decode", *MOGE_ON_A2, "--cards", "4", "--batch", str(found["batch"] + 1))
        self.assertGreater(more["latency_ms"], 50)

    def test_bad_names_and_sizes(self):
        self.assert_fails(BAD_FILE, ["did you mean 'ascend-800i-a2'?"], "sim", "decode", "--model", MODEL, "--hardware", "ascend-800i-a3")
        self.assert_fails(BAD_FILE, [f"did you mean '{MODEL}'?"], "sim", "decode", "--model", MODEL[:-1], "--hardware", A2)
        self.assert_fails(BAD_FILE, ["; there are 'a100-80g', "], "sim", "decode", "--model", MODEL, "--hardware", "b7")
        self.assert_fails(USAGE, ["missing --model"], "sim", "decode", "--hardware", A2)
        for flag, value in (("--batch", "0"), ("--batch", "-1"), ("--context", "0"), ("--cards", "0"), ("--skew", "nan"),
                            ("--batch", "99999999999999999999"), ("--context", "1e3"), ("--slo-tpot-ms", "0")):
            self.assert_fails(USAGE, [flag], "sim", "decode", *MOGE_ON_A2, flag, value)
        for mtp in ("1", "0,0.5", "1,1.5", "x,0.5", "1,nan", "1,0.5,2", "99,0.5"):
            self.assert_fails(USAGE, ["expected K,ACCEPT"], "sim", "decode", *MOGE_ON_A2, "--mtp", mtp)
        self.assert_fails(USAGE, ["expected bf16, fp16, w8a8"], "sim", "decode", *MOGE_ON_A2, "--weights", "w2a2")
        self.assert_fails(USAGE, ["expected bf16, fp16, int8"], "sim", "decode", *MOGE_ON_A2, "--kv", "int3")
        self.assert_fails(USAGE, ["no peak_flops for fp8_e4m3"], "sim", "decode", *MOGE_ON_A2, "--weights", "fp8")
        self.assert_fails(USAGE, ["joins 1 devices"], "sim", "decode", "--model", MODEL, "--hardware", "epyc-zen5-2cpu", "--cards", "2")

    def test_bad_plans(self):
        decode = ("sim", "decode", *MOGE_ON_A2, "--cards", "4", "--plan")
        self.assert_fails(BAD_FILE, ["neither a file"], *decode, "no-such-plan")
        self.assert_fails(USAGE, ["is for 1 devices, asked for 4"], *decode, self.file("a.json", "{}"))
        self.assert_fails(USAGE, ["not divisible by attention_tp 3"], *decode[:-3], "--cards", "3", "--plan",
                   self.file("b.json", '{"attention_tp": 3, "expert_tp": 3}'))
        self.assert_fails(BAD_FILE, ["did you mean 'attention_tp'?"], *decode, self.file("c.json", '{"atention_tp": 4}'))
        self.assert_fails(BAD_FILE, ["pipeline"], *decode, self.file("d.toml", "pipeline = -1"))
        self.assert_fails(BAD_FILE, ["d.json"], *decode, self.file("d.json", "{"))

    def test_bad_machines(self):
        good = (ROOT / "configs/hardware/ascend-800i-a2.toml").read_text(encoding="utf-8")
        for old, new, message in (("value = 1.6e12", "value = 0", "a number 'value' from 1"), ("value = 1.6e12", "value = nan", "a number 'value' from 1"),
                                  ("value = 1.6e12", "value = 1e-300", "a number 'value' from 1"), ('kind = "mesh"', 'kind = "ring"', "kind 'ring'"), ("devices = 8", "devices = 1", "devices")):
            machine = self.file("m.toml", good.replace(old, new, 1))
            self.assert_fails(BAD_FILE, [message], "sim", "decode", "--model", MODEL, "--hardware", machine, "--calibration", A2)

    def test_calibrate(self):
        result = self.answer("sim", "calibrate", "--rows", ROWS, "--hardware", A2, "--hold-out", "a2-72b-decode-228", "--leave-one-out")
        machine = result["machines"][0]
        held_out = [row for row in machine["rows"] if row["status"] == "held out"]
        self.assertEqual([row["row"] for row in held_out], ["a2-72b-decode-228"])
        self.assertLess(abs(held_out[0]["error"]), 0.1)
        self.assertEqual(len(machine["leave_one_out"]["rows"]), 5)
        self.assert_fails(USAGE, ["no such row; did you mean 'a2-32b-decode-1'?"], "sim", "calibrate", "--rows", ROWS, "--hold-out", "a2-32b-decode-l")
        self.assert_fails(USAGE, ["has no rows of h100-sxm"], "sim", "calibrate", "--rows", ROWS, "--hardware", "h100-sxm")
        self.assert_fails(BAD_FILE, ["[[row]]"], "sim", "calibrate", "--rows", self.file("rows.toml", ""))

    def test_train(self):
        train = ("sim", "train", "--model", MODEL, "--hardware", "ascend-800t-a2", "--plan")
        result = self.answer(*train, "report-training", "--baseline", "report-training-baseline", "--cards", "3840")
        self.assertGreater(result["mfu"], result["baseline"]["mfu"])
        self.assertAlmostEqual(sum(op["ms"] for op in result["breakdown"]), result["latency_ms"], places=4)
        self.assert_fails(USAGE, ["not a multiple of the 80"], *train, "report-training", "--cards", "100")
        self.assert_fails(USAGE, ["less than one microbatch"], *train, "report-training", "--cards", "3840", "--global-batch", "4096")

    def test_search_resumes(self):
        space, out = self.file("space.toml", SPACE), self.dir / "out.jsonl"
        args = ("search", "--space", space, "--hardware", f"{A2},{DUO}", "--slo-tpot-ms", "50,100", "--out", out)
        whole = self.answer(*args)
        self.assertGreaterEqual(whole["base"]["rank"], 1)
        self.assertTrue(whole["front"] and whole["top"])
        lines = out.read_bytes()
        out.write_bytes(lines[: len(lines) * 2 // 3])  # as if killed while it wrote
        self.assertEqual(self.answer(*args), whole)
        self.assertEqual(out.read_bytes(), lines)
        out.write_bytes(lines[:50])  # or in its first line
        self.assertEqual(self.answer(*args), whole)
        self.assertEqual(out.read_bytes(), lines)
        self.assert_fails(USAGE, ["another search"], *args, "--context", "4096")
        out.write_bytes(b"my notes")
        self.assert_fails(USAGE, ["another search"], *args)
        self.assertEqual(out.read_bytes(), b"my notes")
        os.mkfifo(self.dir / "fifo")  # nobody writes there: to wait would be for ever
        self.assert_fails(BAD_FILE, ["fifo: expected a regular file, got a special file"], *args[:-1], self.dir / "fifo")
        self.assert_fails(BAD_FILE, ["cannot write: No such file"], *args[:-1], self.dir / "none/out.jsonl")
        self.assert_fails(USAGE, ["none of"], *args[:-2], "--depth-floor", "60")
        self.assert_fails(USAGE, ["expected one number or 2"], *args[:-2], "--cards", "1,2,3")
        self.assert_fails(USAGE, ["--slo-tpot-ms"], "search", "--space", space, "--hardware", A2, "--slo-tpot-ms", "0")


if __name__ == "__main__":
    unittest.main()
