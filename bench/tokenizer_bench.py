#!/usr/bin/env python3
"""Encoding speed against `tokenizers` and `sentencepiece`: same text, same tokenizer file, one thread, line by line.

    python3 bench/tokenizer_bench.py build/cpu-release/bench/tokenizer_bench TEXT_FILE [--vocab 32000]

Trains a tokenizer of each style on the text with the peer, encodes the text with both, checks that the ids agree
(by count and hash) and prints MB per second of CPU time, the best of 3 runs, and the ratio. Needs PyPI's tokenizers and sentencepiece.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train_bpe(folder, lines, style, vocab):
    t = Tokenizer(models.BPE(ignore_merges=style == "llama3"))
    if style == "qwen2":
        t.normalizer = normalizers.NFC()
    if style == "gpt2":
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        pattern = CONTRACTIONS + ("{1,3}" if style == "llama3" else "") + REST
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=vocab, show_progress=False,
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.save(f"{folder}/tokenizer.json")
    peer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    return "tokenizers", lambda line: peer.encode(line, add_special_tokens=False).ids


def train_sentencepiece(folder, lines, vocab):
    with open(f"{folder}/tokenizer.model", "wb") as f:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=f, model_type="bpe", vocab_size=vocab, byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, max_sentence_length=1 << 20,
            num_threads=2, minloglevel=2)
    peer = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")
    return "sentencepiece", peer.encode


def measure(encode, lines):
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        ids = [encode(line) for line in lines]
        best = min(best, time.process_time() - begin)
    value = 0
    for line in ids:
        for i in line:
            value = (value * 31 + i) % 1_000_000_007
    return best, sum(map(len, ids)), value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--vocab", type=int, default=32000)
    args = parser.parse_args()
    text = args.text.read_bytes().decode()
    lines = text.split("\n")
    lines = [line + "\n" for line in lines[:-1]] + lines[-1:] * bool(lines[-1])
    print(f"{len(text.encode()) / 1e6:.1f} MB, {len(lines)} lines, vocabulary {args.vocab}, one thread")
    print(f"{'style':14} {'ours MB/s':>10} {'peer MB/s':>10} {'ratio':>6}  peer")
    for style in ("gpt2", "llama3", "qwen2", "sentencepiece"):
        with tempfile.TemporaryDirectory() as folder:
            if style == "sentencepiece":
                peer, encode = train_sentencepiece(folder, lines, args.vocab)
            else:
                peer, encode = train_bpe(folder, lines, style, args.vocab)
            seconds, num_ids, value = measure(encode, lines)
            out = subprocess.run([args.program, folder, args.text], check=True, capture_output=True, text=True).stdout
            ours = json.loads(out)
        same = (ours["ids"], ours["hash"]) == (num_ids, value)
        rate = len(text.encode()) / 1e6 / seconds
        print(f"{style:14} {ours['mb_per_s']:10.1f} {rate:10.1f} {ours['mb_per_s'] / rate:6.1f}  {peer}"
              + ("" if same else "  IDS DIFFER"))


if __name__ == "__main__":
    main()
