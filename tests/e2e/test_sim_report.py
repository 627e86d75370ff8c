"""Pages of moge sim: one file that fetches nothing and holds the numbers that --json prints; and bad input."""

import html.parser
import json
import pathlib
import re
import shutil
import subprocess
import unittest

from e2e import BAD_FILE, BINARY, OK, USAGE, ProgramTestCase, environment, moge

PLOTLY = pathlib.Path(BINARY).parent.parent / "share/moge/report/plotly.min.js"
MACHINE = ("--model", "pangu-pro-moe-72b-a16b", "--hardware", "ascend-800i-a2")
SERVE = ("sim", "serve", *MACHINE, "--cards", "4", "--requests", "50", "--output-tokens", "32")


class Page(html.parser.HTMLParser):
    """What a page refers to, and its scripts by id."""

    def __init__(self, text):
        super().__init__()
        self.links, self.scripts, self.policy, self.ids = [], {}, "", []
        self._script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("src", "href", "action", "data", "poster") if name in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "script":
            self._script = attrs.get("id", f"script {len(self.scripts)}")
            self.scripts[self._script] = ""
        if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None

    def handle_data(self, data):
        if self._script is not None:
            self.scripts[self._script] += data


class Reports(ProgramTestCase):
    def page_of(self, *command):
        """The page of a command, after the checks that every page must pass, and the command's JSON."""
        if not PLOTLY.exists():
            self.skipTest("script/bootstrap --report has not fetched plotly.js")
        path = self.dir / "page.html"
        run = moge(*command, "--json", "--html", path)
        self.assertEqual(run.returncode, OK, run.stderr.decode())
        page = Page(path.read_text(encoding="utf-8"))
        # The plotting library's text aside, nothing refers to another file or host.
        self.assertEqual(page.links, [])
        self.assertIn("default-src 'none'", page.policy)
        self.assertNotIn("connect-src", page.policy)
        style = re.search(r"<style>(.*?)</style>", path.read_text(encoding="utf-8"), re.DOTALL)[1]
        self.assertNotRegex(style, r"url\(|@import|http")
        self.assertEqual(len(page.ids), len(set(page.ids)), "two elements have one id")
        result = json.loads(run.stdout)
        self.assertEqual(json.loads(page.scripts["result"]), result)
        charts = {chart["id"]: chart for chart in json.loads(page.scripts["charts"])}
        for chart in charts.values():
            self.assertIn(chart["id"], page.ids)
            for series in chart["series"]:
                self.assertEqual(len(series["x"]), len(series["y"]))
        return charts, result

    def test_decode(self):
        charts, result = self.page_of("sim", "decode", *MACHINE, "--cards", "4", "--batch", "64", "--compare", "dense-32b")
        bars = charts["breakdown"]
        shown = {bars["y"]["categories"][int(y)]: x for s in bars["series"] for x, y in zip(s["x"], s["y"])}
        self.assertEqual(shown, {op["op"]: op["ms"] for op in result["breakdown"]})
        self.assertAlmostEqual(sum(shown.values()), result["latency_ms"], delta=1e-6 * result["latency_ms"])
        lines = {s["name"]: s for s in charts["throughput"]["series"]}
        self.assertEqual(set(lines), {"pangu-pro-moe-72b-a16b", "dense-32b"})
        at = next(i for i, note in enumerate(lines["pangu-pro-moe-72b-a16b"]["notes"]) if note.startswith("batch 64:"))
        self.assertAlmostEqual(lines["pangu-pro-moe-72b-a16b"]["y"][at], result["tokens_per_s_per_card"], places=6)
        memory = {s["name"]: s["x"][0] for s in charts["memory"]["series"]}
        self.assertEqual(memory["weights"], result["memory"]["weights_gib"])

    def test_prefill(self):
        charts, result = self.page_of("sim", "prefill", *MACHINE, "--cards", "4", "--batch", "2")
        self.assertEqual(charts["throughput"]["x"]["title"], "Time to the first token (ms)")
        self.assertIn(result["latency_ms"], charts["throughput"]["series"][0]["x"])

    def test_imbalance(self):
        charts, result = self.page_of("sim", "imbalance", "--trials", "20000")
        bars = charts["distribution-chart"]["series"][0]
        self.assertEqual(bars["y"], [entry["probability"] for entry in result["distribution"]])
        self.assertAlmostEqual(sum(bars["y"]), 1)

    def test_calibrate(self):
        rows = pathlib.Path(__file__).resolve().parents[2] / "configs/sim/rows.toml"
        charts, result = self.page_of("sim", "calibrate", "--rows", rows, "--frozen")
        points = [pair for s in charts["parity-0"]["series"] if s["name"] for pair in zip(s["x"], s["y"])]
        self.assertEqual(sorted(points), sorted((r["measured_ms"], r["predicted_ms"]) for r in result["machines"][0]["rows"]))

    def test_serve(self):
        charts, result = self.page_of(*SERVE, "--slo-tpot-ms", "60", "--find-cards")
        self.assertEqual(result["requests"], 50)
        self.assertLessEqual(result["ttft_ms"]["p50"], result["ttft_ms"]["p99"])
        self.assertIn(result["ttft_ms"]["p50"], charts["ttft"]["series"][0]["x"])
        self.assertGreaterEqual(result["find_cards"]["total_cards"], 2)
        self.assertIn("fleet-tpot", charts)

    def test_train(self):
        charts, result = self.page_of(
            "sim", "train", "--model", "pangu-pro-moe-72b-a16b", "--hardware", "ascend-800t-a2", "--cards", "3840",
            "--plan", "report-training", "--baseline", "report-training-baseline",
        )
        for series, plan in zip(charts["breakdown"]["series"], (result, result["baseline"])):
            self.assertAlmostEqual(sum(series["x"]), sum(part["ms"] for part in plan["breakdown"]), places=6)

    def test_search(self):
        space = self.dir / "space.toml"
        space.write_text(
            'base = "pangu-pro-moe-72b-a16b"\nshared_experts = 4\nhidden_size = [4096, 5120]\n'
            "num_hidden_layers = [44, 48]\nnum_attention_heads = [40]\nnum_key_value_heads = [8]\nnum_experts = [64]\n"
            "moe_intermediate_size = { min = 1024, max = 2048, step = 64 }\nparameters = { min = 60e9, max = 80e9 }\n",
            encoding="utf-8",
        )
        charts, result = self.page_of(
            "search", "--space", space, "--hardware", "ascend-800i-a2,ascend-300i-duo", "--slo-tpot-ms", "50,100"
        )
        points = charts["platforms"]["series"]
        speeds = [p["tokens_per_s_per_card"] for p in result["base"]["result"]["platforms"]]
        base = next(s for s in points if s["name"] == "base model")
        self.assertEqual([base["x"][0], base["y"][0]], speeds)
        best = result["top"][0]["platforms"]
        drawn = [pair for s in points for pair in zip(s["x"], s["y"])]
        self.assertIn((best[0]["tokens_per_s_per_card"], best[1]["tokens_per_s_per_card"]), drawn)

    def test_other_files(self):
        svg, png, csv = (self.dir / name for name in ("a.svg", "a.png", "a.csv"))
        run = moge("sim", "imbalance", "--trials", "1000", "--svg", svg, "--csv", csv)
        self.assertEqual(run.returncode, OK, run.stderr.decode())
        self.assertIn("</svg>", svg.read_text(encoding="utf-8"))
        self.assertIn("Imbalance score,Probability", csv.read_text(encoding="utf-8"))
        if shutil.which("rsvg-convert"):
            self.assertEqual(moge("sim", "imbalance", "--trials", "1000", "--png", png).returncode, OK)
            self.assertTrue(png.read_bytes().startswith(b"\x89PNG"))
        env = environment(PATH=str(self.dir))
        run = subprocess.run([BINARY, "sim", "imbalance", "--trials", "1000", "--png", png], env=env, capture_output=True, check=False)
        self.assertEqual(run.returncode, BAD_FILE)
        self.assertIn(b"needs the program rsvg-convert", run.stderr)
        self.assertEqual(sorted(p.name for p in self.dir.iterdir() if "tmp" in p.name), [])

    def test_page_parts_missing(self):
        (self.dir / "bin").mkdir()
        shutil.copy(BINARY, self.dir / "bin/moge")
        run = subprocess.run(
            [self.dir / "bin/moge", "sim", "imbalance", "--trials", "1000", "--html", self.dir / "a.html"],
            env=environment(), capture_output=True, check=False,
        )
        self.assertEqual(run.returncode, BAD_FILE)
        self.assertIn(b"report.css is missing: script/bootstrap --report fetches", run.stderr)
        self.assertFalse((self.dir / "a.html").exists())

    def test_bad_input(self):
        trace = self.dir / "trace.csv"
        head = "timestamp,input_tokens,output_tokens\n"
        for text, message in (
            ("", "no requests"),
            (head, "no requests"),
            (head + "2,1,1\n1,1,1\n", ":3: timestamp 1 is before"),
            (head + "0,0,1\n", "input tokens: expected 1"),
            ("time,input_tokens,output_tokens\n0,1,1\n", "no column 'timestamp'"),
        ):
            trace.write_text(text, encoding="utf-8")
            self.assert_fails(BAD_FILE, [message], *SERVE, "--trace", trace)
        trace.write_text(head + "0,100000000,1\n", encoding="utf-8")
        self.assert_fails(USAGE, ["can never run: it needs 100000000 cached tokens"], *SERVE, "--trace", trace)
        self.assert_fails(BAD_FILE, ["missing.csv"], *SERVE, "--trace", self.dir / "missing.csv")
        self.assert_fails(USAGE, ["--find-cards needs an objective"], *SERVE, "--find-cards")
        self.assert_fails(USAGE, ["requests per second"], *SERVE, "--rate", "0")
        self.assert_fails(USAGE, ["no room for a cache"], *SERVE[:-4], "--cards", "1")
        self.assert_fails(USAGE, ["cannot choose 65 of 64"], "sim", "imbalance", "--top-k", "65")
        self.assert_fails(USAGE, ["do not divide into 7"], "sim", "imbalance", "--groups", "7")
        self.assert_fails(BAD_FILE, ["no/such"], "sim", "imbalance", "--trials", "100", "--csv", self.dir / "no/such/a.csv")


if __name__ == "__main__":
    unittest.main()
