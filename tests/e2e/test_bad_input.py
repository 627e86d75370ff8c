"""Every kind of bad input: the right exit code, a message with what, expected, got and where, nothing on stdout."""

import json
import resource
import shutil
import struct
import subprocess
import unittest

from e2e import BAD_FILE, BINARY, OK, OUT_OF_MEMORY, ROOT, USAGE, TestCase, environment, moge, read_safetensors, write_safetensors


class Usage(TestCase):
    def test_unknown_words_name_the_nearest(self):
        self.assert_fails(USAGE, ["unknown command 'rum'", "did you mean 'run'?"], "rum")
        self.assert_fails(USAGE, ["unknown flag --max-token", "did you mean '--max-tokens'?"], "run", "m", "--max-token", "3")
        self.assert_fails(USAGE, ["did you mean 'tokenizer train'?"], "tokenizer", "trian")
        self.assert_fails(USAGE, ["tokenizer train, tokenizer encode, tokenizer decode"], "tokenizer")
        self.assert_fails(USAGE, ["moge --help"])
        for flag in ("-n3", "-n=3"):
            self.assert_fails(USAGE, [f"unknown flag {flag}", "a value stands apart: -n N"], "run", "m", flag)
        self.assert_fails(USAGE, ["unexpected argument 'run'"], "--version", "run")
        self.assert_fails(USAGE, ["unknown command 'rum'"], "--help", "rum")

    def test_values(self):
        self.assert_fails(USAGE, ["--top-p", "from 0 to 1", "'2'"], "run", self.model, "--top-p", "2")
        for flag in ("--presence-penalty", "--frequency-penalty"):
            self.assert_fails(USAGE, [flag, "from -2 to 2", "'2.5'"], "run", self.model, "-p", "a", flag, "2.5")
        cpu = ["run", self.model, "--device", "cpu", "--token-ids", "-p", "5", "--dtype"]
        self.assert_fails(USAGE, ["--dtype fp8_e4m3", "bf16, f32 or i8"], *cpu, "fp8_e4m3")
        self.assert_fails(USAGE, ["--kv-dtype f32", "i8 weights are bf16"], *cpu, "i8", "--kv-dtype", "f32")
        self.assert_fails(USAGE, ["--kv-dtype i8", "bf16 weights are bf16 or f32"], *cpu, "bf16", "--kv-dtype", "i8")
        self.assert_fails(USAGE, ["--dtype", "bf16, f16, f32, i8 or fp8_e4m3", "'int4'"], "run", self.model, "--dtype", "int4")
        for bench in ("ops", "serve-like"):
            args = ["bench", bench, self.model]
            self.assert_fails(USAGE, ["--device cpu", "needs a GPU"], *args, "--device", "cpu")
            self.assert_fails(USAGE, ["--dtype f16", "i8, fp8_e4m3 or bf16"], *args, "--dtype", "f16")
            self.assert_fails(USAGE, ["--kv-dtype f32", "bf16, f16, i8 or fp8_e4m3"], *args, "--kv-dtype", "f32")
        for dtype in ("f16", "f32"):
            said = ["--dtype: expected i8 or fp8_e4m3 or bf16", f"'{dtype}'"]
            self.assert_fails(USAGE, said, "tune", self.model, "--dtype", dtype)
        self.assert_fails(USAGE, ["missing MODEL"], "inspect")
        self.assert_fails(BAD_FILE, ["a model's directory or the name of a config, got ''"], "inspect", "")
        self.assert_fails(USAGE, ["--stop: expected a text"], "run", self.model, "-p", "a", "--stop", "")
        self.assert_fails(USAGE, ["MOGE_SEED", "'x'"], "run", self.model, "-p", "a", env=environment(MOGE_SEED="x"))
        for threads in ("", "0"):  # all CPUs
            self.run_ok("run", self.model, "-p", "a", "-n", "1", env=environment(MOGE_THREADS=threads))
        for value, *said in (
            ("rmsnorm_fw:cpu.ref", "no op 'rmsnorm_fw'", "did you mean 'rmsnorm_fwd'?"),
            ("rmsnorm_fwd:cpu.foo", "rmsnorm_fwd has no implementation 'cpu.foo'", "cpu.ref"),
            ("cpu.foo", "no op has implementation 'cpu.foo'", "cpu.ref"),
            ("adamw:", "expected op:implementation, got 'adamw:'"),
        ):
            self.assert_fails(USAGE, ["MOGE_IMPL: ", *said], "inspect", self.model, env=environment(MOGE_IMPL=value))
        ask = ["run", self.model, "--device", "cpu", "--token-ids", "-p", "5", "-n", "1"]
        self.assert_fails(USAGE, ["MOGE_VERBOSE: expected dispatch, got 'dispach'"], *ask, env=environment(MOGE_VERBOSE="dispach"))
        said = ["MOGE_IMPL: embedding_fwd has no implementation 'cuda.simple' on this device"]
        self.assert_fails(USAGE, said, *ask, env=environment(MOGE_IMPL="embedding_fwd:cuda.simple"))
        self.run_ok(*ask, env=environment(MOGE_IMPL="cpu.ref,rmsnorm_fwd:cpu.ref,token_layer:none", MOGE_VERBOSE="dispatch"))
        self.assert_fails(USAGE, ["max_position_embeddings, 256"], "run", self.model, "-p", "a", "--context", "257")
        self.assert_fails(USAGE, ["no chat template"], "run", self.model, "-p", "a", "--system", "Be kind.")
        for flag in ("--raw", "--token-ids"):
            said = ["--system", f"which {flag} leaves out"]
            self.assert_fails(USAGE, said, "run", self.model, "-p", "1", "--system", "Be kind.", flag)
        for args in ([self.model, "-p", "a"], ["demo-moge", "--random-weights", "-p", "1"]):
            self.assert_fails(USAGE, ["--prompt-tokens is for"], "run", *args, "--prompt-tokens", "5")
        self.assert_fails(USAGE, ["no weights to verify"], "inspect", "dense-500m", "--verify")
        self.assert_fails(USAGE, ["--random-weights"], "run", "dense-500m", "-p", "a")

    def test_a_model_larger_than_memory(self):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)

        def limit():  # 72 billion weights take more, whatever this machine has
            resource.setrlimit(resource.RLIMIT_AS, (60 << 30, hard))

        if moge("--help", preexec_fn=limit).returncode != OK:
            self.skipTest("a sanitizer's shadow alone is larger than the limit")
        said = ["the plan does not fit in the CPU's memory: weights", "are free", "too few", "would fit"]
        for dtype in ("bf16", "i8"):
            args = ["pangu-pro-moe-72b-a16b", "--random-weights", "--device", "cpu", "--dtype", dtype]
            self.assert_fails(OUT_OF_MEMORY, said, "run", *args, "-p", "1", preexec_fn=limit)
            self.assert_fails(OUT_OF_MEMORY, said, "bench", "prefill", *args, "--context", "16", preexec_fn=limit)
        (self.dir / "run.toml").write_text(
            f'output = "{self.dir}/out"\nmodel.config = "{ROOT}/configs/models/pangu-pro-moe-72b-a16b"\n'
            f'data.tokenizer = "{self.model}"\ndata.paths = ["{self.shared}/text"]\n'
            "[[phase]]\nsteps = 1\nbatch_tokens = 32\nsequence_length = 32\n",
            encoding="utf-8",
        )
        said += ["gradients", "optimizer"]
        self.assert_fails(OUT_OF_MEMORY, said, "train", self.dir / "run.toml", preexec_fn=limit)

    def test_prompts(self):
        self.assert_fails(USAGE, ["the context holds 4"], "run", self.model, "--context", "4", "-p", "word " * 20)
        self.assert_fails(USAGE, ["token 448", "0 to 447"], "run", self.model, "--token-ids", "-p", "1 448")
        self.assert_fails(USAGE, ["expected token ids", "'two'"], "run", self.model, "--token-ids", "-p", "1 two")
        self.assert_fails(USAGE, ["id 448"], "tokenizer", "decode", self.model, "448")

    def test_help_is_for_standard_output(self):
        for args in ([], ["run"], ["train"], ["inspect"], ["tokenizer", "train"], ["bench", "decode"], ["tune"]):
            said = self.run_ok(*args, "--help")
            self.assertIn(b"Exit codes: 0 fine, 2 usage", said)
            for ask in ("help", "--help", "-h"):
                self.assertEqual(self.run_ok(ask, *args, "--help"), said)

    def test_a_groups_help_lists_its_commands(self):
        for group, command in (("tokenizer", "encode"), ("bench", "decode"), ("sim", "decode")):
            said = self.run_ok(group, "--help").decode()
            self.assertIn(f"  {group} {command} ", said)
            self.assertNotIn("  inspect ", said)
        self.assert_fails(USAGE, ["unknown command 'tokens'"], "tokens", "--help")


class Checkpoints(TestCase):
    """A model that is damaged in one way."""

    def setUp(self):
        super().setUp()
        self.bad = self.copy_of_model()
        self.weights = self.bad / "model.safetensors"

    def refused(self, *messages):
        for command in (["inspect", self.bad, "--verify"], ["run", self.bad, "-p", "a"]):
            self.assert_fails(BAD_FILE, messages, *command)

    def change(self, name, change):
        tensors = read_safetensors(self.weights)
        tensors[name] = change(*tensors[name])
        write_safetensors(self.weights, tensors)

    def configure(self, **values):
        path = self.bad / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**config, **values}), encoding="utf-8")

    def test_no_such_model(self):
        self.assert_fails(BAD_FILE, ["no/such/dir"], "run", "no/such/dir", "-p", "a")
        self.assert_fails(BAD_FILE, ["did you mean 'dense-500m'?"], "inspect", "dense-50m")
        self.assert_fails(BAD_FILE, ["expected a directory"], "inspect", self.weights)

    def test_no_weights(self):
        self.weights.unlink()
        self.assert_fails(BAD_FILE, ["neither model.safetensors nor"], "run", self.bad, "-p", "a")

    def test_config_alone(self):
        config = self.dir / "config-alone"
        config.mkdir()
        shutil.copy(self.bad / "config.json", config)
        self.assert_fails(USAGE, ["no weights", "--random-weights"], "run", config, "-p", "1", "--token-ids")
        (config / "model.safetensors").symlink_to("not-downloaded")  # as a hub's cache has them
        self.assert_fails(BAD_FILE, ["cannot open", "model.safetensors: No such file"], "run", config, "-p", "1", "--token-ids")

    def test_truncated_file(self):
        self.weights.write_bytes(self.weights.read_bytes()[:-7])
        self.refused("model.safetensors")

    def test_header_that_claims_too_much(self):
        self.weights.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
        self.refused("model.safetensors")

    def test_missing_tensor(self):
        tensors = read_safetensors(self.weights)
        del tensors["model.norm.weight"]
        write_safetensors(self.weights, tensors)
        self.refused("'model.norm.weight' is missing")

    def test_surplus_tensor(self):
        tensors = read_safetensors(self.weights)
        tensors["model.rotary"] = ("F32", [1], b"\0\0\0\0")
        write_safetensors(self.weights, tensors)
        self.refused("model.rotary")

    def test_names_that_write_to_the_terminal(self):
        tensors = read_safetensors(self.weights)
        tensors["a\n\x1b[31mred"] = ("F32", [1], b"\0\0\0\0")
        write_safetensors(self.weights, tensors)
        self.refused(r"a\x0a\x1b[31mred")

    def test_wrong_shape(self):
        self.change("model.layers.0.mlp.gate.weight", lambda dtype, shape, data: (dtype, shape[::-1], data))
        self.refused("model.layers.0.mlp.gate.weight", "expected shape [64, 16], got [16, 64]")

    def test_nan(self):
        self.change("model.norm.weight", lambda dtype, shape, data: (dtype, shape, data[:6] + b"\xc0\x7f" + data[8:]))
        self.refused("model.norm.weight", "NaN", "[3]")

    def test_unknown_model_type(self):
        self.configure(model_type="mamba", architectures=["MambaForCausalLM"])
        self.refused("mamba", "PanguProMoE")

    def test_contradictions(self):
        self.configure(num_experts=63)
        self.refused("config.json", "63")

    def test_width_that_serving_cannot_lay_out(self):
        self.configure(moe_intermediate_size=4, shared_expert_intermediate_size=4)
        self.assert_fails(BAD_FILE, ["moe_intermediate_size 4", "a multiple of 8"], "run", self.bad, "-p", "a",
                          "--random-weights", "--dtype", "i8", "--device", "cpu")

    def test_broken_config(self):
        (self.bad / "config.json").write_text("{", encoding="utf-8")
        self.refused("config.json", "line 1")

    def test_broken_tokenizer(self):
        (self.bad / "tokenizer.model").write_bytes(b"not a model")
        self.assert_fails(BAD_FILE, ["tokenizer.model"], "run", self.bad, "-p", "a")
        self.assert_fails(BAD_FILE, ["tokenizer.model"], "tokenizer", "encode", self.bad, "a")
        (self.bad / "tokenizer.json").write_text('{"model": {"type": "BPE"', encoding="utf-8")
        self.assert_fails(BAD_FILE, ["tokenizer.json", "line 1"], "tokenizer", "encode", self.bad, "a")

    def test_tokenizer_with_parts_that_do_not_count(self):
        encode = ["tokenizer", "encode", self.dir / "bpe", "a"]
        self.run_ok("tokenizer", "train", "--input", self.shared / "text", "--output", self.dir / "bpe", "--type", "bpe",
                    "--vocab-size", "400")
        self.assertEqual(moge(*encode).stderr, b"")
        path = self.dir / "bpe/tokenizer.json"
        file = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**file, "truncation": {"max_length": 8}, "padding": {"pad_id": 0}}), encoding="utf-8")
        (self.dir / "bpe/special_tokens_map.json").write_text('{"bos_token": "<nope>"}', encoding="utf-8")
        run = moge(*encode)
        self.assertEqual(run.returncode, OK)
        for said in ('"truncation"', '"padding"', 'bos_token "<nope>" is not in the vocabulary'):
            self.assertRegex(run.stderr.decode(), f"warning: .*tokenizer.json: {said}")
        (self.bad / "special_tokens_map.json").write_text('{"eos_token": "<nope>"}', encoding="utf-8")
        (self.bad / "tokenizer_config.json").unlink()
        said = f'warning: {self.bad}/tokenizer.model: eos_token "<nope>" is not in the vocabulary; no text ends at it'
        self.assertEqual(moge("tokenizer", "encode", self.bad, "a").stderr.decode().strip(), said)
        file["model"]["cache"] = 1
        path.write_text(json.dumps(file), encoding="utf-8")
        self.assert_fails(BAD_FILE, ["tokenizer.json: model: unknown key 'cache'"], *encode)

    def test_broken_generation_config(self):
        (self.bad / "generation_config.json").write_text('{"temperature": "hot"}', encoding="utf-8")
        self.assert_fails(BAD_FILE, ["generation_config.json", "temperature"], "run", self.bad, "-p", "a")
        for key, value, expected in (
            ("temperature", -1, "a number from 0 to 100"),
            ("top_k", -3, "an integer from 0"),
            ("top_p", 5, "a number from 0 to 1"),
            ("min_p", 7, "a number from 0 to 1"),
            ("repetition_penalty", 0, "a number from 0.01 to 100"),
            ("eos_token_id", [2, 448], "token ids from 0 to 447"),
        ):
            (self.bad / "generation_config.json").write_text(json.dumps({key: value}), encoding="utf-8")
            said = ["generation_config.json", f"'{key}': expected {expected}", "got "]
            self.assert_fails(BAD_FILE, said, "run", self.bad, "-p", "a")

    def test_broken_chat_template(self):
        (self.bad / "chat_template.jinja").write_text("{% for %}", encoding="utf-8")
        # The weights, which are broken too, are not even looked at.
        self.weights.write_bytes(b"")
        self.assert_fails(BAD_FILE, ["chat_template.jinja"], "run", self.bad, "-p", "a")

    def test_chat_template_that_fails(self):
        for source, said in (
            ("{{ 1 / 0 }}", "division by zero"),
            ("{{ nope() }}", "'nope' is undefined"),
            ("{{ 'x' * 999999999 }}", "too much text"),
            ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "nested more than"),
            ("{{ range(10000000) | length }}", "range too big"),
        ):
            (self.bad / "chat_template.jinja").write_text(source, encoding="utf-8")
            self.assert_fails(BAD_FILE, ["chat_template.jinja:1", said], "run", self.bad, "-p", "a")
        (self.bad / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8")
        self.assert_fails(USAGE, ["refused the messages: no"], "run", self.bad, "-p", "a")

    def test_tokenizer_with_more_ids_than_the_model(self):
        widen = ["tokenizer", "train", "--input", self.shared / "text", "--vocab-size", self.VOCAB + 7, "--output"]
        self.run_ok(*widen, self.dir / "wide")
        (self.dir / "wide/tokenizer.model").replace(self.bad / "tokenizer.model")
        said = [f"{self.bad}: tokenizer: expected at most as many tokens as the model's vocab_size = 448, got 455"]
        self.assert_fails(BAD_FILE, said, "run", self.bad, "-p", "a")
        (self.dir / "run.toml").write_text(
            f'output = "{self.dir}/out"\nmodel.config = "{self.bad}"\ndata.tokenizer = "{self.bad}"\n'
            f'data.paths = ["{self.shared}/text"]\n[[phase]]\nsteps = 1\nbatch_tokens = 32\nsequence_length = 32\n',
            encoding="utf-8",
        )
        self.assert_fails(BAD_FILE, said, "train", self.dir / "run.toml")
        self.run_ok("run", self.bad, "--token-ids", "-n", "1", "-p", "1 2")


class Texts(TestCase):
    def test_text_that_is_not_utf8(self):
        said = "expected UTF-8, got an invalid byte at offset 2"
        run = ["run", self.model, "-n", "1"]
        encode = ["tokenizer", "encode", self.model]
        # subprocess writes a surrogate escape as the byte that it stands for.
        self.assert_fails(USAGE, ["--prompt: " + said], *run, "-p", "ab\udcffcd")
        self.assert_fails(USAGE, ["--stop: " + said], *run, "-p", "a", "--stop", "ab\udcff")
        self.assert_fails(USAGE, ["--system: " + said], *run, "-p", "a", "--system", "ab\udcff")
        self.assert_fails(USAGE, ["TEXT: " + said], *encode, "ab\udcff")
        for command in (run, encode):
            self.assert_fails(BAD_FILE, ["standard input: " + said], *command, stdin=b"ab\xffcd")

    def test_no_text(self):
        (self.dir / "empty").mkdir()
        train = ["tokenizer", "train", "--output", self.dir / "out", "--vocab-size", "300", "--input"]
        self.assert_fails(BAD_FILE, ["nowhere"], *train, self.dir / "nowhere")
        self.assert_fails(BAD_FILE, ["empty"], *train, self.dir / "empty")
        (self.dir / "latin1.txt").write_bytes(b"caf\xe9")
        self.assert_fails(BAD_FILE, ["latin1.txt", "UTF-8", "3"], *train, self.dir / "latin1.txt")
        (self.dir / "empty.txt").write_text(" \n", encoding="utf-8")
        for kind in ("sentencepiece", "bpe"):
            said = [f"no text to read in [{self.dir}/empty.txt]", "is empty"]
            self.assert_fails(BAD_FILE, said, *train, self.dir / "empty.txt", "--type", kind)
        self.assertFalse((self.dir / "out").exists())

    def test_vocabularies_that_cannot_be_learnt(self):
        train = ["tokenizer", "train", "--input", self.shared / "text", "--output", self.dir / "out", "--vocab-size"]
        for kind, own in (("sentencepiece", "<s>"), ("bpe", "a")):
            special = [*train, "400", "--type", kind, "--special-token"]
            self.assert_fails(USAGE, ["a special token is empty"], *special, "")
            self.assert_fails(USAGE, ['"<x>" is there twice'], *special, "<x>", "--special-token", "<x>")
            # subprocess writes a surrogate escape as the byte that it stands for.
            self.assert_fails(USAGE, ["a special token: expected UTF-8", "at offset 1"], *special, "x\udcff")
            self.assert_fails(USAGE, [f'"{own}"', "has a token of that name"], *special, own)
            many = [word for i in range(200) for word in ("--special-token", f"<{i}>")]
            self.assert_fails(USAGE, ["vocab_size 400: expected at least 4"], *train, "400", "--type", kind, *many)
        # The library's reasons, in our words.
        for size, said in (("262", "characters, the bytes and the special tokens need at least "), ("60000", "pieces for at most ")):
            run = moge(*train, size)
            self.assertEqual(run.returncode, USAGE)
            self.assertRegex(run.stderr.decode(), f"model of {size} pieces: the texts[^.]*{said}[1-9][0-9]+\n$")
        self.assertFalse((self.dir / "out").exists())
        # Byte-level BPE learns what there is, and says that it is less.
        run = moge(*train, "60000", "--type", "bpe")
        self.assertEqual(run.returncode, OK)
        self.assertIn("no more tokens than that: 60000 were asked for", run.stderr.decode())

    def test_output_that_cannot_be_written(self):
        # Root may write anywhere, so the place is not read-only but a file.
        (self.dir / "file").write_text("", encoding="utf-8")
        train = ["tokenizer", "train", "--vocab-size", "448", "--input", self.shared / "text", "--output"]
        self.assert_fails(BAD_FILE, ["/file: Not a directory"], *train, self.dir / "file/out")
        self.assert_fails(BAD_FILE, ["/proc/out"], *train, "/proc/out")
        self.assert_fails(BAD_FILE, ["cannot create /proc/deep"], *train, "/proc/deep/out")
        self.assert_fails(BAD_FILE, ["exists already and is not empty"], *train, self.model)

    def test_a_full_disk_leaves_no_tokenizer(self):
        # A file size limit fails as a full disk does: in write(2).
        for kind in ("sentencepiece", "bpe"):
            train = ["tokenizer", "train", "--input", self.shared / "text", "--vocab-size", "400", "--type", kind]
            command = ["sh", "-c", "trap '' XFSZ; ulimit -f 1; exec \"$@\"", "sh", BINARY, *train]
            run = subprocess.run(
                [*command, "--output", self.dir / "out"], stderr=subprocess.PIPE, env=environment(), check=False
            )
            self.assertEqual(run.returncode, BAD_FILE)
            self.assertIn(b"File too large", run.stderr)
            self.assertEqual(list(self.dir.iterdir()), [])

    def test_standard_output_that_is_full(self):
        with open("/dev/full", "wb") as full:
            run = subprocess.run([BINARY, "--help"], stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
        self.assertEqual(run.returncode, BAD_FILE)
        self.assertIn(b"standard output", run.stderr)


class TrainingConfigs(TestCase):
    def refused(self, code, messages, text):
        (self.dir / "run.toml").write_text(text, encoding="utf-8")
        self.assert_fails(code, messages, "train", self.dir / "run.toml")

    def test_config_files(self):
        self.assert_fails(BAD_FILE, ["absent.toml"], "train", self.dir / "absent.toml")
        self.refused(BAD_FILE, ["run.toml:1:8"], "seed = \n")
        phase = "[[phase]]\nsteps = 1\nbatch_tokens = 2\nsequence_length = 2\n"
        self.refused(BAD_FILE, ["run.toml", "'seeds'", "did you mean 'seed'?"], "seeds = 1\n" + phase)
        data = 'data.tokenizer = "t"\ndata.paths = ["a"]\n'
        for said, text in (
            ("[data]: key 'paths' is missing", 'data.tokenizer = "t"\n'),
            ("[data]: key 'tokenizer' is missing", 'data.paths = ["a"]\n'),
            ("[data]: key 'paths': expected a list of files or directories, got [1]", 'data.tokenizer = "t"\ndata.paths = [1]\n'),
            ("[model]: expected config or init_from, got neither", 'model.dtype = "f32"\n'),
            ("[model]: expected config or init_from, got both", 'model.config = "a"\nmodel.init_from = "b"\n'),
            ("[optimizer]: key 'beta1': expected a number", "optimizer.beta1 = 1\n"),
            ("expected one or more [[phase]] tables, got none", data),
            ("expected one or more [[phase]] tables, got 3", "phase = 3\n" + data),
            ("phase 1: key 'steps' is missing", phase.replace("steps = 1\n", "")),
            ("phase 1: key 'batch_tokens' is missing", phase.replace("batch_tokens = 2\n", "")),
            ("phase 1: key 'sequence_length' is missing", phase.replace("sequence_length = 2\n", "")),
        ):
            self.refused(BAD_FILE, ["run.toml: " + said], text)


if __name__ == "__main__":
    unittest.main()
