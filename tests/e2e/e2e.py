"""What the tests of this folder share: running the real program, and making small models for it.

Python's standard library only. MOGE_BINARY names the program; ctest sets it.
"""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden/models"
BINARY = os.environ["MOGE_BINARY"]

OK, USAGE, BAD_FILE, OUT_OF_MEMORY, ENGINE = 0, 2, 3, 4, 5

TEXT = (
    "It was a bright cold day in April, and the clocks were striking thirteen. The hallway smelt of boiled cabbage "
    "and old rag mats. She had never seen 1984 such days; naïve ideas, größer als je, 你好世界, and more of the same.\n"
)


def environment(**more):
    """The environment without the program's own variables, on one thread: the machine may be busy."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MOGE_")}
    return {**clean, "MOGE_THREADS": "1", **more}


def moge(*args, stdin=b"", env=None, timeout=120, **kwargs):
    """Runs the program to its end, `kwargs` as subprocess.run has them: a CompletedProcess with bytes."""
    command = [BINARY, *map(str, args)]
    env = env or environment()
    return subprocess.run(command, input=stdin, capture_output=True, env=env, timeout=timeout, check=False, **kwargs)


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    data = pathlib.Path(path).read_bytes()
    (header_bytes,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_bytes])
    start = 8 + header_bytes
    return {
        name: (info["dtype"], info["shape"], data[start + info["data_offsets"][0] : start + info["data_offsets"][1]])
        for name, info in header.items()
        if name != "__metadata__"
    }


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(data for _, _, data in tensors.values())
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)


def bf16_normal(count, seed):
    """The bytes of `count` normal numbers in bfloat16."""
    rng = random.Random(seed)
    return b"".join(struct.pack("<f", rng.gauss(0, 1))[2:] for _ in range(count))


class ProgramTestCase(unittest.TestCase):
    """A test of the program, with a folder of its own."""

    @classmethod
    def setUpClass(cls):
        cls.shared = pathlib.Path(tempfile.mkdtemp(prefix="moge-e2e-"))
        cls.addClassCleanup(shutil.rmtree, cls.shared)

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=self.shared))

    def file(self, name, text):
        (self.dir / name).write_text(text, encoding="utf-8")
        return self.dir / name

    def run_ok(self, *args, **kwargs):
        """Standard output of a run that must succeed."""
        run = moge(*args, **kwargs)
        self.assertEqual(run.returncode, OK, run.stderr.decode())
        return run.stdout

    def run_json(self, *args, **kwargs):
        return json.loads(self.run_ok(*args, "--json", **kwargs))

    def assert_fails(self, code, messages, *args, **kwargs):
        """The run must exit with `code`, print nothing on standard output, and say each of `messages`."""
        run = moge(*args, **kwargs)
        said = run.stderr.decode()
        self.assertEqual(run.returncode, code, said)
        self.assertEqual(run.stdout, b"")
        for message in messages:
            self.assertIn(message, said)


class TestCase(ProgramTestCase):
    """One with a model beside it: the weights of a golden model, its vocabulary widened with random rows to that
    of a tokenizer that the program trained."""

    VOCAB = 448

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        (cls.shared / "text").mkdir()
        (cls.shared / "text/a.txt").write_text(TEXT * 4, encoding="utf-8")
        (cls.shared / "text/b.txt").write_text(TEXT[::-1] * 4, encoding="utf-8")
        cls.model = cls.shared / "model"
        run = moge("tokenizer", "train", "--input", cls.shared / "text", "--vocab-size", cls.VOCAB, "--output", cls.model)
        assert run.returncode == OK, run.stderr.decode()
        tensors = read_safetensors(GOLDEN / "moge_4x16/model.safetensors")
        for seed, name in enumerate(("model.embed_tokens.weight", "lm_head.weight")):
            dtype, (_, width), _ = tensors[name]
            assert dtype == "BF16", dtype
            tensors[name] = (dtype, [cls.VOCAB, width], bf16_normal(cls.VOCAB * width, seed))
        write_safetensors(cls.model / "model.safetensors", tensors)
        config = json.loads((GOLDEN / "moge_4x16/config.json").read_text(encoding="utf-8"))
        config.update(vocab_size=cls.VOCAB, max_position_embeddings=256)
        (cls.model / "config.json").write_text(json.dumps(config), encoding="utf-8")

    def copy_of_model(self):
        return pathlib.Path(shutil.copytree(self.model, self.dir / "model"))
