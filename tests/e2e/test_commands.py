"""What the commands do when all is well."""

import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import time
import unittest

from e2e import BAD_FILE, BINARY, GOLDEN, OK, TEXT, TestCase, environment, moge

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


class Inspect(TestCase):
    def test_the_released_model(self):
        r = self.run_json("inspect", "pangu-pro-moe-72b-a16b")
        self.assertAlmostEqual(r["parameters"] / 1e9, 71.99, delta=0.005)
        self.assertAlmostEqual(r["active_parameters"] / 1e9, 16.50, delta=0.005)
        # 48 layers, 8 heads of 128 for keys and as many for values, 2 bytes each.
        self.assertEqual(r["kv_bytes_per_token"], 2 * 48 * 8 * 128 * 2)
        # Two FLOPs for each active weight but the embedding's and the biases, and attention over half of 4096.
        matmul = 2 * (r["active_parameters"] - 153376 * 5120) + 4 * 48 * 40 * 128 * 2048
        self.assertAlmostEqual(r["flops_per_token"] / matmul, 1, delta=1e-3)
        self.assertEqual(r["weight_bytes"]["bf16"], 2 * r["parameters"])
        self.assertEqual((r["num_experts"], r["num_expert_groups"], r["num_experts_per_tok"]), (64, 8, 8))
        text = self.run_ok("inspect", "pangu-pro-moe-72b-a16b").decode()
        self.assertIn("71.99 B", text)
        self.assertIn("16.50 B", text)

    def test_checkpoints(self):
        for golden in sorted(GOLDEN.iterdir()):
            r = self.run_json("inspect", golden, "--verify")
            self.assertTrue(r["checkpoint"]["finite"], golden)

    def test_a_path_that_is_not_utf8(self):
        model = f"{self.dir}/m\udcff"  # the byte 0xff to the system
        shutil.copytree(GOLDEN / "llama", model)
        self.assertEqual(self.run_json("inspect", model)["model"], str(self.dir) + "/m\ufffd")

    def test_configs_elsewhere(self):
        (self.dir / "models/mine").mkdir(parents=True)
        (self.dir / "models/mine/config.json").write_bytes((GOLDEN / "llama/config.json").read_bytes())
        r = self.run_json("inspect", "mine", env=environment(MOGE_CONFIGS=str(self.dir)))
        self.assertEqual(r["model_type"], "llama")


class Tokenizer(TestCase):
    def test_round_trips(self):
        text = (TEXT + "\t two  spaces \n\n").encode()
        kinds = [["sentencepiece"], *(["bpe", "--style", style] for style in ("gpt2", "llama3", "qwen2"))]
        for kind in kinds:
            out = self.dir / kind[-1]
            self.run_ok(
                "tokenizer", "train", "--input", self.shared / "text", "--vocab-size", 400, "--type", *kind, "--output", out,
                "--special-token", "<|turn|>",
            )
            ids = self.run_ok("tokenizer", "encode", out, stdin=text)
            self.assertEqual(self.run_ok("tokenizer", "decode", out, stdin=ids), text)
            r = json.loads(self.run_ok("tokenizer", "encode", out, "--json", "--parse-special", "a<|turn|>"))
            self.assertEqual(len(r["ids"]), len(r["pieces"]))
            self.assertIn("<|turn|>", r["pieces"])
            self.assertNotIn("<|turn|>", json.loads(self.run_ok("tokenizer", "encode", out, "--json", "a<|turn|>"))["pieces"])

    def test_the_same_text_gives_the_same_files(self):
        for name in ("one", "two"):
            self.run_ok("tokenizer", "train", "--input", self.shared / "text", "--vocab-size", 400, "--output", self.dir / name)
        for file in sorted((self.dir / "one").iterdir()):
            self.assertEqual(file.read_bytes(), (self.dir / "two" / file.name).read_bytes(), file)


class Run(TestCase):
    def test_text_goes_to_standard_output_only(self):
        args = ["run", self.model, "-n", "12", "--seed", "3"]
        text = self.run_ok(*args, "-p", "It was")
        self.assertEqual(self.run_ok(*args, stdin=b"It was\n"), text)
        self.assertEqual(self.run_ok(*args, "-p", "It was", "--echo"), b"It was" + text)
        # Into one file, the text's line ends before the rates.
        command = [BINARY, *map(str, args), "-p", "It was"]
        both = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(), check=True)
        self.assertIn(text + b"[prompt ", both.stdout)
        r = self.run_json(*args, "-p", "It was")
        self.assertEqual(r["text"] + "\n", text.decode())
        self.assertEqual(len(r["tokens"]), 12)
        self.assertEqual(r["finish"], "max tokens")
        self.assertEqual(r["options"]["max-tokens"], 12)
        for rate in ("prefill_tokens_per_second", "decode_tokens_per_second", "decode_bytes_per_second"):
            self.assertGreater(r[rate], 0)

    def test_greedy_tokens_depend_on_nothing_else(self):
        args = ["run", self.model, "-n", "20", "--temperature", "0", "--ignore-eos", "-p", TEXT]
        tokens = self.run_json(*args)["tokens"]
        self.assertEqual(self.run_json(*args, "--seed", "9", "--threads", "2")["tokens"], tokens)
        self.assertEqual(self.run_json(*args, "--kv-dtype", "bf16", env=environment(MOGE_TEMPERATURE="5"))["tokens"], tokens)
        self.assertNotEqual(self.run_json(*args[:5], "5", *args[6:])["tokens"], tokens)
        for penalty in ("--presence-penalty=-2", "--frequency-penalty=-2"):
            self.assertNotEqual(self.run_json(*args, penalty)["tokens"], tokens)

    def test_eight_bit_weights(self):
        """Loaded and quantised, or made up: the fast paths draw what the reference draws."""
        made_up = ["demo-moge", "--random-weights", "--prompt-tokens", "9"]
        for model in (GOLDEN / name for name in ("router_scale", "qwen3", "qwen3_moe")):
            made = ["run", model, "--token-ids", "-p", "5 6 7 8 9", "--dtype", "i8", "--device", "cpu"]
            self.check_impls([*made, "-n", "20", "--temperature", "0", "--ignore-eos"])
        self.check_impls(["run", *made_up, "--dtype", "i8", "--device", "cpu", "-n", "4", "--temperature", "0"])
        r = self.run_json("bench", "decode", *made_up, "--dtype", "i8", "--device", "cpu", "-n", "4", "--rounds", "3")
        self.assertEqual(r["dtype"], "i8")

    def check_impls(self, args):
        tokens = self.run_json(*args)["tokens"]
        for impl in ("cpu.ref", "cpu.avx2"):
            self.assertEqual(self.run_json(*args, env=environment(MOGE_IMPL=impl))["tokens"], tokens, impl)
        self.assertEqual(self.run_json(*args, "--threads", "2")["tokens"], tokens)

    def test_ends(self):
        args = ["run", self.model, "--temperature", "0", "--token-ids", "-p", "5 6 7"]
        tokens = self.run_json(*args, "-n", "8", "--ignore-eos")["tokens"]
        full = self.run_json(*args, "-n", "50", "--context", "6", "--ignore-eos")
        self.assertEqual(full["finish"], "context full")
        self.assertEqual(full["tokens"], tokens[:4])
        for context, hint in (6, True), (256, False):
            said = moge(*args, "-n", "300", "--context", context, "--ignore-eos").stderr
            self.assertIn(b"is full", said)
            self.assertEqual(b"--context takes up to 256" in said, hint)
        # The model's files name the end of a text.
        model = self.copy_of_model()
        (model / "generation_config.json").write_text(
            json.dumps({"eos_token_id": [tokens[2]], "do_sample": False}), encoding="utf-8"
        )
        r = self.run_json("run", model, "--token-ids", "-p", "5 6 7")
        self.assertEqual(r["finish"], "end of text")
        self.assertEqual(r["tokens"], tokens[: tokens.index(tokens[2]) + 1])

    def test_ids_without_a_piece_give_no_text(self):
        model = self.copy_of_model()
        small = ["--input", self.shared / "text", "--vocab-size", 400, "--output", self.dir / "small"]
        self.run_ok("tokenizer", "train", *small)
        (self.dir / "small/tokenizer.model").replace(model / "tokenizer.model")
        r = self.run_json("run", model, "-n", "60", "--temperature", "9", "--ignore-eos", "-p", "She")
        self.assertEqual(len(r["tokens"]), 60)
        self.assertTrue(any(id >= 400 for id in r["tokens"]))

    def test_stop_strings(self):
        args = ["run", self.model, "-n", "40", "--temperature", "0", "--ignore-eos", "-p", "She"]
        text = self.run_json(*args)["text"]
        stop = text[3:5]
        r = self.run_json(*args, "--stop", stop)
        self.assertEqual(r["finish"], "stop string")
        self.assertEqual(r["text"], text[: text.index(stop)])

    def test_random_weights(self):
        ids = self.run_ok("run", "demo-topk", "--random-weights", "-n", "5").split()
        self.assertEqual(len(ids), 5)
        self.assertTrue(all(0 <= int(i) < 4096 for i in ids))
        r = self.run_json("bench", "decode", "demo-topk", "--random-weights", "-n", "4", "--rounds", "3")
        shares = sorted(round["percent_of_read_bandwidth"] for round in r["rounds"])
        self.assertEqual((len(shares), r["percent_of_read_bandwidth"]), (3, shares[1]))
        self.assertGreater(shares[0], 0)
        for round in r["rounds"]:  # memory's best moment is no slower than its mean
            self.assertGreaterEqual(round["read_bandwidth"], round["sustained_read_bandwidth"])
            ratio = round["percent_of_sustained_read_bandwidth"] / round["percent_of_read_bandwidth"]
            self.assertAlmostEqual(ratio, round["read_bandwidth"] / round["sustained_read_bandwidth"], delta=1e-6)

    def test_prompts_on_the_cpu(self):
        made_up = ["demo-topk", "--random-weights", "--device", "cpu"]
        model = self.run_json("inspect", "demo-topk", "--context", "300")
        head = 2 * model["vocab_size"] * model["hidden_size"]
        flops = 300 * (model["flops_per_token"] - head) + head  # logits of the last token only
        for dtype in ("bf16", "f32", "i8"):
            r = self.run_json("bench", "prefill", *made_up, "--dtype", dtype, "--context", "300", "--repeats", "3")
            self.assertEqual((r["weights"], r["context"], len(r["rounds"])), (dtype, 300, 3))
            self.assertEqual(r["ttft_ms"], sorted(round["ttft_ms"] for round in r["rounds"])[1])
            self.assertAlmostEqual(r["tokens_per_second"] * r["ttft_ms"], 300e3, delta=1)
            self.assertAlmostEqual(r["flops"] / flops, 1, delta=1e-9)
            percents = sorted(round["percent_of_product_ceiling"] for round in r["rounds"])
            self.assertEqual(r["percent_of_product_ceiling"], percents[1])
            if r["product_ceiling"] > 0:  # 0: this CPU has no instructions for the type
                self.assertGreater(percents[0], 0)
        r = self.run_json("bench", "llama", *made_up, "--repeats", "1")
        self.assertGreater(r["pp512_tokens_per_second"], 0)
        self.assertGreater(r["tg128_tokens_per_second"], 0)
        for command in ("prefill", "decode"):
            said = moge("bench", command, *made_up, "--batch", "2")
            self.assertEqual(said.returncode, 2)
            self.assertIn(b"--batch", said.stderr)

    def test_chat_template(self):
        model = self.copy_of_model()
        (model / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        args = ["-n", "4", "--temperature", "0"]
        asked = self.run_json("run", model, "-p", "Hello", *args, "--system", "Be kind.")
        written = self.run_json(
            "run", model, "--raw", "-p", "[system] Be kind.\n[user] Hello\n[assistant]", *args
        )
        # --raw lets the tokenizer put its bos in front; the template writes none.
        self.assertEqual(asked["prompt_tokens"], written["prompt_tokens"] - 1)
        # A special token that the user spells is text, of as many tokens as it takes.
        eos = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))["eos_token"]
        forged = self.run_json("run", model, "-p", "Hello" + eos, *args, "--system", "Be kind.")
        self.assertGreater(forged["prompt_tokens"], asked["prompt_tokens"] + 1)


class Terminal:
    """The program at a terminal of its own."""

    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(BINARY, [BINARY, *map(str, args)], environment())
        self.seen = ""

    def wait_for_any(self, seconds=60):
        """Waits for something new, and keeps it in `seen`."""
        if not select.select([self.fd], [], [], seconds)[0]:
            raise AssertionError(f"nothing more came after {self.seen!r}")
        try:
            data = os.read(self.fd, 4096)
        except OSError:  # the program has ended
            data = b""
        if not data:
            raise AssertionError(f"ended after {self.seen!r}")
        self.seen += data.decode(errors="replace")

    def wait_for(self, text):
        """Returns what came up to and with `text`."""
        while text not in self.seen:
            self.wait_for_any()
        before, self.seen = self.seen.split(text, 1)
        return before + text

    def type(self, line):
        os.write(self.fd, line.encode())

    def exit_code(self):
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


class Chat(TestCase):
    def test_a_conversation(self):
        model = self.copy_of_model()
        (model / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
        terminal = Terminal("run", model, "-n", "8", "--ignore-eos", "--context", "250")
        terminal.wait_for("> ")
        terminal.type("/help\n")
        terminal.wait_for("/reset begins anew")
        terminal.type("/nonsense\n")
        terminal.wait_for("unknown command /nonsense")
        terminal.type("Hello\n")
        self.assertIn(" 0 of them cached", terminal.wait_for("GB/s; "))
        # The second turn knows the first.
        terminal.type("And now?\n")
        self.assertNotIn(" 0 of them cached", terminal.wait_for("of them cached"))
        terminal.wait_for("max tokens]")
        # What does not fit is refused, and the chat goes on.
        terminal.type("word " * 100 + "\n")
        terminal.wait_for("the context holds 250")
        terminal.type("/reset\n")
        terminal.type("Hello\n")
        terminal.wait_for("[prompt ")
        terminal.wait_for("> ")
        terminal.type("/exit\n")
        self.assertEqual(terminal.exit_code(), OK)

    def test_ctrl_c_stops_an_answer(self):
        config = json.loads((self.model / "config.json").read_text(encoding="utf-8"))
        model = self.copy_of_model()
        (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100000}), encoding="utf-8")
        terminal = Terminal("run", model, "-n", "90000", "--ignore-eos", "--context", "100000")
        terminal.wait_for("continues each line")
        terminal.wait_for("> ")
        terminal.type("Hello\n")
        terminal.wait_for("Hello\r\n")
        terminal.wait_for_any()  # the answer has begun
        terminal.type("\x03")
        terminal.wait_for("interrupted]")
        terminal.type("/exit\n")
        self.assertEqual(terminal.exit_code(), OK)


def protobuf_fields(message):
    """[(number, value)] of a message: integers, and the bytes of all else."""
    fields, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        number, wire_type = divmod(varint(), 8)
        if wire_type == 0:
            fields.append((number, varint()))
            continue
        size = varint() if wire_type == 2 else {1: 8, 5: 4}[wire_type]
        fields.append((number, message[at : at + size]))
        at += size
    return fields


def tensorboard_series(folder, tag):
    """[(step, value)] of a run's event files as TensorBoard shows them: a session's start at a step hides what was
    said of that step and later ones."""
    series = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):  # u64 length, u32 its checksum, the event, u32 its checksum
            (size,) = struct.unpack_from("<Q", data, at)
            event = dict(protobuf_fields(data[at + 12 : at + 12 + size]))
            at += size + 16
            step = event.get(2, 0)
            if 7 in event and (1, 1) in protobuf_fields(event[7]):
                series = [(s, value) for s, value in series if s < step]
            for _, value in protobuf_fields(event.get(5, b"")):
                named = dict(protobuf_fields(value))
                if named[1].decode() == tag:
                    series.append((step, struct.unpack("<f", named[2])[0]))
    return series


class Train(TestCase):
    def config(self, output):
        path = self.dir / "run.toml"
        path.write_text(
            f"""
            output = "{output}"
            [model]
            config = "{self.model}"
            [data]
            paths = ["{self.shared / "text"}"]
            tokenizer = "{self.model}"
            holdout_modulus = 2
            [eval]
            tokens = 64
            [[phase]]
            steps = 6
            lr = 0.01
            batch_tokens = 64
            sequence_length = 32
            """,
            encoding="utf-8",
        )
        return path

    def test_an_interrupted_run_ends_as_a_whole_one(self):
        config = self.config(self.dir / "whole")
        whole = self.run_json("train", config)
        self.assertTrue(whole["finished"])
        part = self.run_json("train", config, "--output", self.dir / "parts", "--steps", "2")
        self.assertEqual((part["steps"], part["finished"]), (2, False))
        rest = self.run_json("train", config, "--output", self.dir / "parts")
        self.assertEqual(rest["state_hash"], whole["state_hash"])
        for tag in ("train/loss", "router/expert_max", "eval/bits_per_byte"):
            series = tensorboard_series(self.dir / "parts", tag)
            self.assertEqual(series, tensorboard_series(self.dir / "whole", tag))
        self.assertEqual([step for step, _ in tensorboard_series(self.dir / "parts", "train/loss")], list(range(6)))
        # What was trained is a model.
        self.assertTrue(self.run_json("inspect", self.dir / "whole/model", "--verify")["checkpoint"]["finite"])
        self.run_ok("run", self.dir / "whole/model", "-p", "It was", "-n", "3")

    def test_kill_9_at_any_moment_loses_nothing(self):
        config = self.config(self.dir / "whole")
        text = config.read_text(encoding="utf-8").replace("steps = 6", "steps = 40")
        text = text.replace("tokens = 64\n", "tokens = 64\nevery = 3\n", 1)
        config.write_text(text + "[checkpoint]\nevery = 3\n", encoding="utf-8")
        whole = self.run_json("train", config)
        killed = self.dir / "killed"
        command = [BINARY, "train", config, "--output", killed, "--json"]
        pause = 0.05
        for _ in range(60):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
            try:
                out, errors = process.communicate(timeout=pause)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                pause *= 1.1  # so that it ends some time, at a moment that differs each time
        else:
            self.fail("never finished between kills")
        self.assertEqual(process.returncode, OK, errors.decode())
        self.assertEqual(json.loads(out)["state_hash"], whole["state_hash"])
        for log in ("train.csv", "eval.csv"):
            self.assertEqual((killed / log).read_text(), (self.dir / "whole" / log).read_text(), log)
        # Nothing half-written is left beside the checkpoints.
        names = {path.name for path in killed.iterdir()}
        self.assertFalse([n for n in names if "partial" in n or "tmp" in n], names)
        self.assertEqual(sorted(n for n in names if n.startswith("step-")), ["step-00000039", "step-00000040"])

    def started(self, config, output):
        """A training run that has begun to log its steps."""
        process = subprocess.Popen(
            [BINARY, "train", config, "--output", output, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        log = output / "train.csv"
        while not log.exists() or len(log.read_bytes().splitlines()) < 3:
            self.assertIsNone(process.poll())
            time.sleep(0.05)
        return process

    def test_a_second_run_in_the_same_folder_is_refused(self):
        config = self.config(self.dir / "whole")
        text = config.read_text(encoding="utf-8").replace("steps = 6", "steps = 1000000")
        config.write_text(text + "[checkpoint]\nevery = 3\n", encoding="utf-8")
        shared = self.dir / "shared"
        first = self.started(config, shared)
        first.send_signal(signal.SIGSTOP)  # so that nothing changes that the others leave alone
        try:
            before = {path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}
            said = [f"cannot lock {shared}: expected no other process at work there"]
            for more in ([], ["--fresh"]):
                self.assert_fails(BAD_FILE, said, "train", config, "--output", shared, *more)
            self.assertEqual({path: path.read_bytes() for path in shared.rglob("*") if path.is_file()}, before)
        finally:
            first.send_signal(signal.SIGINT)
            first.send_signal(signal.SIGCONT)
        out, errors = first.communicate(timeout=60)
        self.assertEqual(first.returncode, OK, errors.decode())
        result = json.loads(out)
        whole = self.run_json("train", config, "--steps", result["steps"])
        self.assertEqual(result["state_hash"], whole["state_hash"])

    def test_ctrl_c_leaves_a_checkpoint(self):
        config = self.config(self.dir / "out")
        text = config.read_text(encoding="utf-8").replace("steps = 6", "steps = 1000000")
        config.write_text(text, encoding="utf-8")
        process = self.started(config, self.dir / "out")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, OK, errors.decode())
        result = json.loads(out)
        self.assertFalse(result["finished"])
        self.assertTrue(list((self.dir / "out").glob("step-*")))


if __name__ == "__main__":
    unittest.main()
