#!/usr/bin/env python3
"""Writes tests/golden/tokenizers/: 10,000 lines in many scripts, small tokenizers trained on them, and for every
line a hash of the ids and of the decoded text that the reference implementations give.

    python3 tests/golden/make_tokenizer_golden.py

Made with tokenizers 0.23.3, sentencepiece 0.2.3, transformers 5.24.0 (needed only to turn the SentencePiece model
into Llama's tokenizer.json), Python 3.11 (whose unicodedata, 14.0, says which characters are assigned). All text is
made up here from the word lists and character ranges below; nothing is quoted.

Files
  lines.bin              per line: u32 length, bytes (UTF-8)
  STYLE/tokenizer.json   or tokenizer.model; STYLE/tokenizer_config.json where the loader needs one
  STYLE/expected.bin     per line: u32 hash of the ids, u32 hash of the decoded text
A hash is FNV-1a, 32 bits, over the ids as little-endian i32, or over the bytes of the text.
"""

import pathlib
import random
import shutil
import struct
import tempfile
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).parent / "tokenizers"
NUM_LINES = 10_000
SEED = 20250521
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

ENGLISH = """the a of and to in that it was he for his with as had her at on not but which be she they from all this
were have by one you so when there would said been into out who them their more some then up what no upon if could like
only time down very about other over little before after where old great man way long day house any night again came
went made see eyes hand never thought without through must under though water looked morning river garden window letter
journey shadow mountain silence answer question expert group routes every token balance device load model weight gate
I'm don't it's we'll they've she'd can't o'clock naïve café fiancée coöperate résumé""".split()
GERMAN = "der die und nicht für über Straße größer Mädchen schön Übung heißt weiß können Fluß Ärger wäre".split()
FRENCH = "l'été où déjà être naître çà œuvre garçon élève hôtel d'accord s'il qu'elle français".split()
CODE = ["for (int i = 0; i < n; ++i) {", "\treturn x[i] * 0x1F;", "    def forward(self, hidden_states):", "}\n\n",
        "if __name__ == \"__main__\":", "#include <vector>", "a->b(&c, *d) != NULL;", "SELECT * FROM t WHERE id=42;",
        "const auto& [k, v] : map", "\\frac{1}{2}\\sum_{i=1}^{N}", "https://example.org/a?b=c&d=e%20f#g",
        "user.name+tag@example.com", "2024-05-27T12:34:56.789Z", "{\"key\": [1, 2.5e-3, null]}", "<div class='x'>",
        "x = y if z else w  # comment", "std::vector<std::pair<int, float>>", "$HOME/.config/*.toml", "\r\n", "a\tb\t\tc"]
EMOJI = ["🙂", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "🇯🇵", "❤️", "🏳️‍🌈", "1️⃣", "🤷🏿‍♂️", "☕", "🧑‍💻", "✨"]
SPACES = [" ", "  ", "    ", "\t", "\t\t", "\n", "\n\n", "\r\n", "\r", " \n ", "   \n\n  ", "\u00a0", "\u2003", "\u3000",
          "\u200b", "\u180e", "\u2028", "\u0085", "\x0b", "\x0c", "\u202f", "\ufeff", "\u1680", " \t \u00a0 "]
CONTRACTIONS = ["'s", "'S", "'t", "'RE", "'ve", "'Ll", "'d", "'M", "\u2019s", "'ſ", "s'", "''", "'\u212a"]
SPECIALS = ["<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<tool_call>",
            "</tool_call>", "[unused9]", "[unused10]", "<|im_end", "[MASK]", "[SEP]", " [MASK] ", "x[MASK]y", "<word>",
            "a<word>", " <word> ", "ＡＤＤＥＤ", "added"]
MARKS = "\u0301\u0308\u0327\u0323\u0300\u0302\u20dd\u0345"


def syllables(r, consonants, vowels, n):
    return "".join(r.choice(consonants) + r.choice(vowels) for _ in range(n))


def word(r, script):
    n = r.randint(1, 4)
    if script == "english":
        w = ENGLISH[min(int(r.expovariate(0.03)), len(ENGLISH) - 1)]
        return r.choice([w, w, w, w, w.capitalize(), w.upper(), w + r.choice(",.;:!?…—")])
    if script == "latin":
        return r.choice(GERMAN + FRENCH)
    if script == "han":
        return "".join(chr(0x4E00 + min(int(r.expovariate(0.002)), 0x51FF)) for _ in range(n + 1))
    if script == "kana":
        return "".join(chr(r.choice([0x3041, 0x30A1]) + r.randrange(80)) for _ in range(n + 1))
    if script == "hangul":
        return "".join(chr(0xAC00 + min(int(r.expovariate(0.001)), 11171)) for _ in range(n))
    if script == "cyrillic":
        return syllables(r, "бвгджзклмнпрстфхцчшщБПС", "аеиоуыэюяёй", n)
    if script == "arabic":
        return "".join(r.choice("ابتثجحخدذرزسشصضطظعغفقكلمنهوي") + r.choice(["", "", "\u064e", "\u0651"]) for _ in range(n + 2))
    if script == "devanagari":
        return "".join(r.choice("कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसह") + r.choice(["", "ा", "ि", "ी", "ु", "े", "्", "ं", "़"])
                       for _ in range(n + 1))
    if script == "greek_hebrew_thai":
        return r.choice([syllables(r, "βγδζκλμνπρστ", "αεηιοωάή", n), "".join(r.choice("אבגדהוזחטיכלמנ") for _ in range(n + 2)),
                         "".join(r.choice("กขคงจชดตถทนบปผพมยรลวสหอ") + r.choice(["", "ะ", "ั", "า", "่"]) for _ in range(n + 1))])
    if script == "marks":
        return "".join(r.choice("aeiouncsAEON가각ᄀ") + "".join(r.choice(MARKS + "\u1161\u11a8") for _ in range(r.randint(0, 3)))
                       for _ in range(n))
    if script == "emoji":
        return "".join(r.choice(EMOJI) for _ in range(r.randint(1, 3)))
    if script == "number":
        return r.choice([str(r.randrange(10 ** r.randint(1, 9))), f"{r.random() * 1000:.3f}", f"{r.randrange(10**7):,}", "½", "²³",
                         "Ⅻ", "٣٤٥", "१२३", "４２", "①②", "$9.99", "100%", "-7", "3rd"])
    if script == "code":
        return r.choice(CODE)
    if script == "contraction":
        return r.choice(ENGLISH) + r.choice(CONTRACTIONS)
    if script == "space":
        return r.choice(SPACES)
    if script == "special":
        return r.choice(SPECIALS)
    if script == "control":
        return "".join(chr(r.choice([*range(0x20), *range(0x7F, 0xA0)])) for _ in range(n))
    assert script == "any", script
    chars = []
    while len(chars) < n:
        c = chr(r.randrange(r.choice([0x300, 0x3000, 0x10000, 0x20000, 0x110000])))
        # Younger punctuation than Unicode 8, where tokenizers' Punctuation ends; ours knows it.
        if unicodedata.category(c) not in ("Cn", "Cs") and c not in "\u1b7d\u2e4e":
            chars.append(c)
    return "".join(chars)


SCRIPTS = {"english": 30, "latin": 6, "han": 6, "kana": 2, "hangul": 2, "cyrillic": 6, "arabic": 4, "devanagari": 4,
           "greek_hebrew_thai": 3, "marks": 3, "emoji": 3, "number": 5, "code": 6, "contraction": 4, "space": 3, "special": 2,
           "control": 1, "any": 3}


def make_lines():
    r = random.Random(SEED)
    names, weights = list(SCRIPTS), list(SCRIPTS.values())
    lines = ["", " ", "  ", "a", "\n", "\x00"]
    while len(lines) < NUM_LINES:
        main = r.choices(names, weights)[0]
        line = ""
        for i in range(r.randint(1, 9)):
            if i > 0:
                line += r.choices([" ", "", r.choice(SPACES)], [16, 2, 1])[0]
            line += word(r, main if r.random() < 0.75 else r.choices(names, weights)[0])
        while len(line.encode()) > 110:
            line = line[: len(line) * 2 // 3]
        lines.append(line)
    return lines


def fnv1a(data):
    h = 0x811C9DC5
    for byte in data:
        h = ((h ^ byte) * 0x01000193) & 0xFFFFFFFF
    return h


def write_expected(style, lines, encode, decode):
    with open(OUT / style / "expected.bin", "wb") as f:
        for line in lines:
            ids = encode(line)
            f.write(struct.pack("<II", fnv1a(struct.pack(f"<{len(ids)}i", *ids)), fnv1a(decode(ids).encode())))


def write_json(style, tokenizer, lines, encode_options=None):
    (OUT / style).mkdir(parents=True)
    tokenizer.save(str(OUT / style / "tokenizer.json"), pretty=False)
    tokenizer = Tokenizer.from_file(str(OUT / style / "tokenizer.json"))
    write_expected(style, lines, lambda s: tokenizer.encode(s).ids, lambda ids: tokenizer.decode(ids, skip_special_tokens=False))


def train(tokenizer, lines, vocab_size, special_tokens, alphabet):
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special_tokens,
                                                             initial_alphabet=alphabet, show_progress=False))


def gpt2(lines):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    train(t, lines, 1000, ["<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet())
    write_json("gpt2", t, lines)


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama3(lines):
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.pre_tokenizer = split(LLAMA3)
    t.decoder = decoders.ByteLevel()
    specials = ["<|begin_of_text|>", "<|eot_id|>"]
    train(t, lines, 1200, specials, pre_tokenizers.ByteLevel.alphabet())
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", t.token_to_id("<|begin_of_text|>"))])])
    write_json("llama3", t, lines)


def qwen2(lines):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = split(QWEN2)
    t.decoder = decoders.ByteLevel()
    train(t, lines, 1200, [], pre_tokenizers.ByteLevel.alphabet())
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    write_json("qwen2", t, lines)


def mixed(lines):
    """The rest of what we support, in combinations that no model has: unknown characters, normalised added tokens."""
    t = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(left=False),
                                         normalizers.Replace(Regex(r"\s{3,}"), "  "), normalizers.Replace("ß", "ss")])
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(prepend_scheme="first", split=True),
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation("isolated"),
        pre_tokenizers.Split("e", "merged_with_previous"), pre_tokenizers.Split(Regex("[oö]+"), "merged_with_next")])
    t.decoder = decoders.Metaspace(prepend_scheme="first")
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=900, limit_alphabet=300, special_tokens=["[UNK]", "[SEP]"],
                                                     show_progress=False))
    t.add_tokens([AddedToken("[MASK]", lstrip=True, rstrip=True), AddedToken("<word>", single_word=True), AddedToken("ADDED")])
    t.post_processor = processors.TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", t.token_to_id("[SEP]"))])
    write_json("mixed", t, lines)


def whitespace(lines):
    t = Tokenizer(models.BPE(unk_token="[UNK]"))
    t.pre_tokenizer = pre_tokenizers.Whitespace()
    t.decoder = decoders.Fuse()
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=700, limit_alphabet=400, special_tokens=["[UNK]"],
                                                     show_progress=False))
    write_json("whitespace", t, lines)


def sentencepiece_bpe(lines):
    folder = OUT / "sentencepiece"
    folder.mkdir(parents=True)
    with open(folder / "tokenizer.model", "wb") as f:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=f, model_type="bpe", vocab_size=2600, byte_fallback=True,
            split_digits=True, allow_whitespace_only_pieces=True, normalization_rule_name="identity",
            remove_extra_whitespaces=False, character_coverage=0.98, user_defined_symbols=["[unused9]", "[unused10]"],
            num_threads=2, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    write_expected("sentencepiece", lines, sp.encode, sp.decode)
    # T5's way: characters rewritten (a few of NFKC's rules, to keep the table small), spaces trimmed, unknown characters.
    folder = OUT / "sentencepiece_trimmed"
    folder.mkdir(parents=True)
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules, open(folder / "tokenizer.model", "wb") as f:
        for c in [*map(chr, range(0xFF01, 0xFF5F)), "\u3000", "\u00a0", "\t", "\n", "\r", "½", "²", "³", "Ⅻ", "①", "…", "e\u0301"]:
            to = " " if c in "\t\n\r" else unicodedata.normalize("NFKC", c)
            rules.write(" ".join(f"{ord(x):X}" for x in c) + "\t" + " ".join(f"{ord(x):X}" for x in to) + "\n")
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=f, model_type="bpe", vocab_size=2600, character_coverage=0.98,
            normalization_rule_tsv=rules.name, num_threads=1, minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    write_expected("sentencepiece_trimmed", lines, sp.encode, sp.decode)


def llama2(lines):
    """The SentencePiece model as Hugging Face converts it: BPE on characters with byte fallback."""
    from transformers import LlamaTokenizerFast
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(OUT / "sentencepiece" / "tokenizer.model", folder)
        t = LlamaTokenizerFast.from_pretrained(folder, legacy=True).backend_tokenizer
    write_json("llama2", t, lines)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    lines = make_lines()
    with open(OUT / "lines.bin", "wb") as f:
        for line in lines:
            f.write(struct.pack("<I", len(line.encode())) + line.encode())
    for style in (gpt2, llama3, qwen2, mixed, whitespace, sentencepiece_bpe, llama2):
        style(lines)
    print(f"tokenizers {tokenizers.__version__}, sentencepiece {sentencepiece.__version__}, unicodedata {unicodedata.unidata_version}")


if __name__ == "__main__":
    main()
