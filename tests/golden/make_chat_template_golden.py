#!/usr/bin/env python3
"""Writes tests/golden/chat_templates/golden.json: what transformers (jinja2, configured as its apply_chat_template
does) makes of the templates beside it for many conversations, and of some hundred one-line snippets.

    python3 tests/golden/make_chat_template_golden.py

Made with transformers 5.24.0 and Jinja2 3.1.6, Python 3.11. The templates are written for this test, in the manner
of those that model families ship (same constructs, same turn formats).
"""

import datetime
import json
import pathlib

from transformers.utils import chat_template_utils as hf

OUT = pathlib.Path(__file__).parent / "chat_templates"
NOW = 1_700_000_000  # 2023-11-14 22:13:20 UTC; the C++ test sets TZ=UTC and the same second


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


hf.datetime = FixedClock


def call(name, arguments, call_id="abc123XYZ"):
    return {"type": "function", "id": call_id, "function": {"name": name, "arguments": arguments}}


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a place.\nNow or later.",
        "parameters": {"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "e.g. \"Zürich\" <or> & 北京"},
            "unit": {"enum": ["celsius", "fahrenheit"], "default": "celsius"},
            "days": {"type": "array", "items": {"type": "integer"}},
            "extra": {"type": "object", "properties": {"deep": {"type": ["string", "null"]}}}}}}},
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}}},
]

CONVERSATIONS = {
    "one turn": [turn("user", "Hello")],
    "system": [turn("system", "Be brief."), turn("user", "  Hello \n")],
    "three turns": [turn("user", "1+1?"), turn("assistant", "2"), turn("user", "And 2+2?")],
    "ends with assistant": [turn("system", "S"), turn("user", "Q"), turn("assistant", " A ")],
    "unicode": [turn("system", "你是助手。"), turn("user", "Grüße, 世界! 👋🏽 \u200d עברית"), turn("assistant", "¡Olé! ‘quotes’ \u00a0")],
    "special characters": [turn("user", "a\\nb \"quoted\" 'single' <tag> & {{ braces }} {% block %}\ttab\r\nline")],
    "empty content": [turn("system", ""), turn("user", ""), turn("assistant", ""), turn("user", "\n")],
    "thinking in content": [turn("user", "Q"), turn("assistant", "<think>\nhm, hm\n</think>\n\nA"), turn("user", "Q2"),
                            turn("assistant", "[unused16]hm[unused17]\nA2")],
    "reasoning member": [turn("user", "Q"), turn("assistant", "A", reasoning_content="\nbecause\n"), turn("user", "R"),
                         turn("assistant", "B", reasoning="why not")],
    "one tool call": [turn("user", "Weather in Zürich?"),
                      turn("assistant", "", tool_calls=[call("get_weather", {"place": "Zürich", "days": [1, 2], "wind": 1.5})]),
                      turn("tool", "{\"temp\": -3}", name="get_weather", tool_call_id="abc123XYZ"),
                      turn("assistant", "It is cold."), turn("user", "Thanks")],
    "null content": [turn("user", "W?"), turn("assistant", None, tool_calls=[call("get_weather", {"place": "A"})]),
                     turn("tool", "cold", tool_call_id="abc123XYZ")],
    "two tool calls": [turn("system", "Use tools."), turn("user", "Both?"),
                       turn("assistant", "Looking.", tool_calls=[call("get_weather", {"place": "A", "ok": True, "no": None}),
                                                                  call("stop", {}, "short")]),
                       turn("tool", "1"), turn("tool", "2"), turn("assistant", "Done."), turn("user", "<tool_response>x</tool_response>")],
    "parts": [turn("user", [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "what?"}])],
    "bad order": [turn("assistant", "I begin"), turn("user", "no")],
    "unknown role": [turn("user", "x"), turn("narrator", "y")],
    "nobody": [],
    "mode in system": [turn("system", "Be brief. /no_think"), turn("user", "hi"), turn("assistant", "\n\nyo")],
    "override in system": [turn("system", "Raw /system_override /think "), turn("user", "hi"), turn("assistant", "\nyo")],
}

OPTIONS = [
    {"add_generation_prompt": True},
    {"add_generation_prompt": False, "tools": True},
    {"add_generation_prompt": True, "tools": True, "kwargs": {"enable_thinking": False, "tools_in_user_message": False,
                                                              "builtin_tools": ["code_interpreter", "search", "stop"]}},
]

VARIABLES = {
    "n": 7, "m": -3, "x": 2.5, "big": 12345678901234567, "tiny": 1e-7, "huge": 1e22, "yes": True, "no": False, "nil": None,
    "s": "Hello, World", "u": "Grüße 世界 👋", "w": "  spaced\t text \n", "e": "", "lines": "one\ntwo\r\nthree\n\nfive",
    "quote": "it's \"so\" \\ <b>&amp;\u00e9\u0001\u200b", "l": [3, 1, 2], "words": ["b", "A", "c"], "mixed": [1, "a", None, True, 2.0, [1], {"k": "v"}],
    "d": {"b": 1, "a": "x", "C": [1, 2]}, "people": [{"name": "Ann", "age": 30, "tags": ["x"]}, {"name": "bob", "age": 4, "tags": []},
                                                     {"name": "Cy", "extra": {"deep": [9]}}],
    "nested": {"a": {"b": {"c": [1, {"d": "end"}]}}}, "el": [], "ed": {}, "items": {"items": 1, "keys": 2},
}

SNIPPETS = r"""
{{ n }} {{ m }} {{ x }} {{ big }} {{ tiny }} {{ huge }} {{ yes }} {{ nil }} {{ l }} {{ d }} {{ mixed }} {{ missing }}
{{ 1.0 }} {{ 100000000000000000.0 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e15 }} {{ 0.0001 }} {{ 0.00001 }} {{ -0.0 }}
{{ n + 1 }} {{ n - m }} {{ n * 2 }} {{ n / 2 }} {{ n // 2 }} {{ n % 4 }} {{ m // 2 }} {{ m % 5 }} {{ 2 ** 10 }} {{ 2 ** -1 }}
{{ x + 1 }} {{ x * 2 }} {{ x // 1 }} {{ x % 2 }} {{ -x }} {{ +n }} {{ -m|abs }} {{ 7.5 // -2 }} {{ -7.5 % 2 }} {{ 1 / 4 * 4 }}
{{ 1 + 2 * 3 ** 2 - 4 / 2 }} {{ (1 + 2) * 3 }} {{ 2 ** 3 ** 2 }} {{ 10 - 3 - 2 }} {{ not n == 7 }} {{ 1_000 + 0x10 + 0b11 + 0o7 }}
{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ 'a' ~ 1 ~ none ~ true ~ missing }} {{ "x" "y" 'z' }}
{{ 'a' + 1 }}
{{ 1 + none }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ missing + 'a' }}
{{ missing.x }}
{{ missing['x'] }}
{{ d.missing.x }}
{{ missing() }}
{{ s() }}
{{ n == 7 }} {{ n != 7 }} {{ n < 8 }} {{ n >= 8 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ nil == none }}
{{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }} {{ [1, 2] < [1, 3] }} {{ 'a' < 'b' }} {{ (1, 2) == [1, 2] }} {{ 'Z' < 'é' }}
{{ 'a' < 1 }}
{{ none < 1 }}
{{ 'ell' in s }} {{ 'x' not in s }} {{ 1 in l }} {{ 'b' in d }} {{ 'z' in d }} {{ 1.0 in l }} {{ 'x' in missing }} {{ none in mixed }}
{{ 1 in s }}
{{ 1 in 2 }}
{{ yes and 'a' }} {{ no or 'b' }} {{ e or 'c' }} {{ not e }} {{ e and 'd' }}|{{ [] or {} or 0 or 'last' }} {{ yes and no or 'x' }}
{{ 'a' if yes else 'b' }} {{ 'a' if no else 'b' }} {{ 'a' if no }}| {{ 'a' if no else 'b' if no else 'c' }} {{ (1 if yes else 2) + 1 }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[:-1] }} {{ s[100] }}| {{ s[-3:] }} {{ s[::2] }} {{ s[10:2:-3] }} {{ u[6:8] }} {{ u[-1] }} {{ u[::-1] }}
{{ l[0] }} {{ l[-1] }} {{ l[1:] }} {{ l[::-1] }} {{ l[9] }}| {{ l[:2] }} {{ l[5:] }} {{ l[-2:] }} {{ l[-9:9] }} {{ l[2:0:-1] }} {{ (1, 2, 3)[1:] }}
{{ l[::0] }}
{{ l['a':] }}
{{ d.a }} {{ d['a'] }} {{ d.C[1] }} {{ d['zz'] }}| {{ nested.a.b.c[1].d }} {{ nested['a'].b['c'][0] }} {{ l.0 }} {{ d.get('b') }} {{ d.get('q') }} {{ d.get('q', 5) }}
{{ items.keys is callable }} {{ items['items'] }} {{ items.items() | list }} {{ d.keys() | list }} {{ d.values() | list }} {{ d.items() | list }}
{{ d | length }} {{ l | length }} {{ u | length }} {{ s | count }} {{ el | length }} {{ missing | length }}
{{ 5 | length }}
{{ w.strip() }}|{{ w.lstrip() }}|{{ w.rstrip() }}|{{ 'xxaxx'.strip('x') }} {{ 'xyaxy'.lstrip('xy') }} {{ 'axy'.rstrip('yx') }} {{ w | trim }}|{{ 'xax' | trim('x') }} {{ '\u3000a\xa0'.strip() }}
{{ s.split(', ') }} {{ w.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a b  c'.split(' ') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ ' a b c '.split(none, 1) }} {{ ' a b c '.rsplit(none, 1) }} {{ 'aaaa'.rsplit('aa') }}
{{ 'a'.split('') }}
{{ lines.splitlines() }} {{ 'a\x0bb\u2028c'.splitlines() }} {{ ','.join(['a', 'b']) }} {{ '-'.join('abc') }}
{{ ','.join([1, 2]) }}
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ "they're bill's".title() }} {{ 'hELLO wORLD'.capitalize() }} {{ u.upper() }} {{ u.lower() }} {{ 'ÀÉ'.lower() }} {{ 'привет'.title() }}
{{ s.startswith('He') }} {{ s.endswith('ld') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('x') }} {{ s.startswith('') }}
{{ s.startswith(1) }}
{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ s.replace('', '-') }} {{ s.replace('', '-', 2) }} {{ s | replace('o', '0') }} {{ s | replace('o', '0', 1) }} {{ 'aaa'.replace('aa', 'b') }}
{{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('zz') }} {{ s.count('l') }} {{ s.index('W') }} {{ u.find('世') }} {{ 'aaa'.count('aa') }} {{ 'abc'.count('') }} {{ s.rfind('') }}
{{ s.index('zz') }}
{{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ 'ab'.isalpha() }} {{ ''.isdigit() }} {{ ' '.isspace() }} {{ 'AB'.isupper() }} {{ 'ab1'.islower() }} {{ '1'.isupper() }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }}
{{ l.index(2) }} {{ [1, 1, 2].count(1) }}
{{ l.append(4) }}
{{ d.update({'q': 1}) }}
{{ l.pop() }}
{{ s.nosuch() }}
{{ s | upper }} {{ s | lower }} {{ 'hello wORLD-foo (bar) it\'s' | title }} {{ 'hELLO' | capitalize }} {{ 5 | string + 'x' }} {{ nil | upper }} {{ 'x' | safe }}
{{ missing | default('d') }} {{ nil | default('d') }} {{ e | default('d', true) }} {{ e | default('d') }}| {{ missing | d('q') }} {{ missing | default }}| {{ no | default('z', boolean=true) }}
{{ l | first }} {{ l | last }} {{ el | first }}| {{ s | first }} {{ d | first }} {{ l | reverse | list }} {{ s | reverse }} {{ u | list }} {{ d | list }}
{{ l | join }} {{ l | join(', ') }} {{ 'abc' | join('-') }} {{ people | join(' ', attribute='name') }} {{ mixed | join('|') }} {{ missing | join(',') }}|
{{ l | sort }} {{ l | sort(reverse=true) }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ people | sort(attribute='name') | map(attribute='name') | list }} {{ words | sort(true) }}
{{ d | dictsort }} {{ d | dictsort(true) }} {{ {'x': 2, 'y': 1} | dictsort(by='value') }} {{ d | dictsort(reverse=true) }}
{{ l | max }} {{ l | min }} {{ words | max }} {{ l | sum }} {{ [1.5, 2] | sum }} {{ el | sum }} {{ people[:2] | sum(attribute='age') }} {{ l | sum(start=10) }} {{ people[:2] | max(attribute='age') }} {{ el | max }}|
{{ [1, 2, 1, 'a', 'A'] | unique | list }} {{ people | map(attribute='name') | join(',') }} {{ people | map(attribute='age', default=0) | list }} {{ words | map('upper') | list }} {{ l | map('string') | join }} {{ people[2:] | map(attribute='extra.deep.0') | list }} {{ [' a ', 'b'] | map('trim') | list }} {{ ['ab', 'cb'] | map('replace', 'b', 'x') | list }}
{{ people | selectattr('age') | map(attribute='name') | list }} {{ people[:2] | selectattr('age', 'gt', 5) | map(attribute='name') | list }} {{ people | rejectattr('age', 'defined') | map(attribute='name') | list }} {{ people | selectattr('name', 'equalto', 'bob') | list | length }} {{ people | selectattr('tags') | list | length }} {{ people[2:] | selectattr('extra.deep', 'defined') | list | length }}
{{ l | select('odd') | list }} {{ l | reject('odd') | list }} {{ mixed | select | list }} {{ mixed | select('string') | list }} {{ l | select('in', [1, 2]) | list }} {{ l | select('>', 1) | list }}
{{ l | map('nosuch') | list }}
{{ people | map(attribute='extra.deep', default='z') | list }}
{{ people | map(attribute='extra.deep.0') | list }}
{{ people | selectattr('age', 'gt', 5) | list }}
{{ l | map | list }}
{{ people | map(attrib='x') | list }}
{{ '42' | int }} {{ '4.9' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ ' 7 ' | int }} {{ 4.9 | int }} {{ '1f' | int(base=16) }} {{ '0x1f' | int(0, 16) }} {{ '2.5' | float }} {{ 'q' | float }} {{ 'q' | float(1.5) }} {{ 3 | float }} {{ nil | int }} {{ true | int }} {{ '' | int }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 2.6 | round | int }} {{ 2.1 | round(method='ceil') }} {{ 2.19 | round(1, 'floor') }} {{ m | abs }} {{ -2.5 | abs }} {{ 7 | round }}
{{ quote | escape }} {{ '<' | e }} {{ lines | indent }} {{ lines | indent(2, true) }} {{ lines | indent(2, blank=true) }} {{ lines | indent('> ') }} {{ 'a b  c' | wordcount }}
{{ "%s and %d, %.2f%%" | format('a', 3, 1.005) }} {{ '%s-%s' % ('a', 1) }} {{ 'x%s' % 5 }}
{{ '%s' % ('a', 'b') }}
{{ '%d' % 'a' }}
{{ d | items | list }} {{ missing | items | list }} {{ d | attr('items') is callable }}
{{ l | items | list }}
{{ s | tojson }} {{ quote | tojson }} {{ mixed | tojson }} {{ d | tojson }} {{ nil | tojson }} {{ x | tojson }} {{ u | tojson }} {{ big | tojson }} {{ el | tojson }} {{ ed | tojson }} {{ huge | tojson }}
{{ u | tojson(ensure_ascii=true) }} {{ d | tojson(sort_keys=true) }} {{ d | tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ (1, 2) | tojson }}
{{ d | tojson(indent=2) }} {{ mixed | tojson(indent=4) }} {{ el | tojson(indent=2) }} {{ [[], {}, [1]] | tojson(indent=1) }} {{ nested | tojson(indent=0) }}
{{ missing | tojson }}
{{ range | tojson }}
{{ quote }} {{ [quote] }} {{ ['a\nb\t\\', "it's", 'say "x"', 'both \' "', 'é世👋\u200b\x07\xa0'] }} {{ {'k': 'v', 1: none} }} {{ (1,) }} {{ () }} {{ [1.0, 1e100] }}
{{ n is defined }} {{ missing is defined }} {{ missing is undefined }} {{ nil is none }} {{ n is not none }} {{ yes is true }} {{ yes is false }} {{ 1 is true }} {{ no is false }} {{ yes is boolean }}
{{ s is string }} {{ n is string }} {{ d is mapping }} {{ l is mapping }} {{ l is iterable }} {{ s is iterable }} {{ n is iterable }} {{ missing is iterable }} {{ d is iterable }} {{ l is sequence }} {{ d is sequence }} {{ s is sequence }} {{ n is sequence }} {{ missing is sequence }} {{ nil is iterable }}
{{ n is number }} {{ x is number }} {{ yes is number }} {{ s is number }} {{ n is integer }} {{ yes is integer }} {{ x is float }} {{ n is float }} {{ n is odd }} {{ n is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ m is odd }}
{{ n is eq 7 }} {{ n is equalto 8 }} {{ n is ne 8 }} {{ n is gt 3 }} {{ n is lessthan(3) }} {{ n is ge 7 }} {{ 1 is in [1] }} {{ 1 is in l }} {{ nil is sameas none }} {{ 'ab' is lower }} {{ 'AB' is upper }} {{ range is callable }} {{ 'upper' is filter }} {{ 'nosuch' is filter }}
{{ s is string and n is defined }} {{ not s is string }} {{ s is not string or yes }} {{ missing is defined and missing.x }} {{ missing is not defined or missing.x }}
{{ n is nosuch }}
{{ n | nosuch }}
{{ range(3) | list }} {{ range(1, 4) | list }} {{ range(5, 0, -2) | list }} {% for i in range(2) %}{{ i }}{% endfor %} {{ range(0) | list }}
{{ range(1000000) | length }}
{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ namespace(a=1).a }} {{ namespace(a=1).b }}|
{{ strftime_now('%Y-%m-%d %H:%M') }} {{ strftime_now("%d %b %Y") }} {{ strftime_now('') }}|
{{ raise_exception('no ' ~ n) }}
{% set a = 1 %}{{ a }} {% set a, b = 2, 3 %}{{ a }}{{ b }} {% set c %}block {{ n }}{% endset %}{{ c }} {% set f | upper %}shout{% endset %}{{ f }} {% set g = 'a', 'b' %}{{ g }}
{% set a, b = [1] %}
{% set d.x = 1 %}
{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }} {% set ns.y = [ns.x] %}{{ ns.y }}
{% set v = 0 %}{% for i in l %}{% set v = v + i %}{{ v }}{% endfor %} {{ v }} {% if yes %}{% set v = 9 %}{% endif %}{{ v }}
{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }} {{ loop.previtem }}<{{ i }}<{{ loop.nextitem }} {% endfor %}
{% for i in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{{ loop.depth }}{% for j in l %}{{ loop.depth0 }}{% endfor %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %} {% for k in d %}{{ k }}{% endfor %} {% for c in 'añ' %}[{{ c }}]{% endfor %} {% for i in missing %}x{% else %}none{% endfor %} {% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}
{% for i in l if i > 1 %}{{ loop.index }}/{{ loop.length }}:{{ i }} {% endfor %} {% for i in l if i > 5 %}x{% else %}nothing{% endfor %} {% for p in people if p.age is defined and p.age > 5 %}{{ p.name }}{% endfor %}
{% for i in l %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %} {% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% else %}never{% endfor %}
{% for i in 5 %}{% endfor %}
{% for i in none %}{% endfor %}
{% for a, b in l %}{% endfor %}
{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %} {% if no %}a{% elif n > 3 %}b{% else %}c{% endif %} {% if no %}a{% elif no %}b{% else %}c{% endif %} {% if no %}a{% endif %}
{% if missing %}a{% else %}b{% endif %} {% if missing == none %}a{% else %}b{% endif %} {% if missing == missing2 %}same{% endif %}
{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, 3) }} {{ f(1, c='z') }} {{ f(b=5, a=4) }} {{ f() }} {{ f(1) | upper }} {{ f(1) + 'q' }}
{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}
{% macro f(a) %}{% endmacro %}{{ f(z=2) }}
{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}
{% set g = 'outer' %}{% macro f() %}{{ g }}{{ n }}{% set g = 'inner' %}{{ g }}{% endmacro %}{{ f() }} {{ g }} {% for i in l %}{% set loc = i %}{{ f() }}{% endfor %}
{% macro fact(k) %}{{ 1 if k < 2 else k * (fact(k - 1) | int) }}{% endmacro %}{{ fact(10) }}
{% macro w(t) %}<{{ t }}>{{ caller('arg') }}</{{ t }}>{% endmacro %}{% call(x) w('b') %}body {{ x }} {{ n }}{% endcall %}
{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}
{% filter upper %}low {{ n }}{% endfilter %} {% filter replace('a', 'b') | upper %}banana{% endfilter %} {% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }} {% generation %}gen{% endgeneration %}
{% raw %}{{ not }} {% parsed %}{% endraw %} a{# comment {{ x }} #}b {#- c -#} d
  {%- if yes -%}  a  {%- endif -%}  b
a {{- ' b ' -}} c {{ 'd' }}
{{ "a\"b" }} {{ 'a\'b' }} {{ "\u00e9\x41\n\t\\" }} {{ '\d' }} {{ '\101' }} {{ 'a' 'b' }}
{{ [1, 2, ] }} {{ {'a': 1, } }} {{ [] }} {{ {} }} {{ {'a': {'b': [1, {'c': 2}]}} }} {{ {'a': 1}['a'] }} {{ [1, 2][1] }} {{ (1, 2)[0] }} {{ {1: 'one'}[1] }} {{ {true: 't'}[1] }}
{{ 'a}}b' }} {{ {'x': {'y': 1}}}} {{ '%}' }} {{ "{%" }} {{ {'a':{}}['a'] }}
{{ (n if yes else m) ~ '' }} {{ n ~ '-' ~ x }} {{ s | upper | lower | title }} {{ (s | length) + 1 }} {{ s|length + 1 }} {{ -n|string }} {{ not missing }}
{{ people[0].name }} {{ people[0]['tags'][0] }} {{ people[-1].extra.deep | first }} {{ (people | first).name }} {{ people | length > 2 }} {{ people[1:] | map(attribute='name') | first }}
{{ True }} {{ False }} {{ None }} {{ true and True }} {{ none is none }}
{{ {[1]: 2} }}
{{ 'unclosed }}
{{ n
{% if n %}
{% endif %}
{% nosuch %}
{{ }}
{{ n n }}
{{ (n }}
{{ [n }}
{{ n) }}
{{ n + }}
{% for i l %}{% endfor %}
{% set = 1 %}
{% break %}
{# never closed
{% raw %} never closed
{% macro f(a=1, b) %}{% endmacro %}
{{ f(a=1, 2) }}
{{ n is }}
{{ n | }}
{{ @ }}
{{ n; }}
{{ 1.2.3 }}
{% elif %}
{% set x = %}
{% if %}a{% endif %}
""".strip("\n").split("\n")

# White space control over several lines, as trim_blocks and lstrip_blocks have it.
LAYOUTS = [
    "a\n  {% if yes %}\n  b\n  {% endif %}\nc\n",
    "a\n  {%+ if yes %}\n  b\n  {%+ endif %}\nc\n\n",
    "a\n  {%- if yes +%}\n  b\n  {%- endif -%}\n\n c",
    "  {{ n }}\n  {# comment #}\n  {{- n }}\n{{ n -}}\n  x",
    "{% for i in l %}\n  {{ i }}\n{% endfor %}\n",
    "{% for i in l -%}\n  {{ i }}\n{%- endfor %}\n",
    "x {% if yes %} y {% endif %} z\n {# c #} {% set a = 1 %}\n{{ a }}",
    "\r\na\r\n{% if yes %}\r\nb\rc{% endif %}\n",
    "{% raw -%}\n  {{ x }}\n  {%- endraw %}\n  z",
    "  {% raw %}\n  a  {% endraw %}\nb",
    "\t{% set q %}\n  in\n\t{% endset %}\n[{{ q }}]",
    "a\n\u00a0{% if yes %}b{% endif %}\n",
    "{#- a -#}\n\n  b\n  {#+ c +#}\nd",
    "{%- macro f(a) %}\n<{{ a }}>\n{% endmacro %}\n\n{{ f(1) }}\n{{- f(2) }}",
    "a {#- x -#} b {{+ n }} c",
    "text only\n\n", "", "\n", "{{ '\n' }}\n\n", "{{ n }}\n", "{% if yes %}{% endif %}\n\n",
]


def render(template, messages, options):
    chat = hf._normalize_chat_messages(messages)
    tools = TOOLS if options.get("tools") else None
    return hf.render_jinja_template([chat], tools=tools, chat_template=template, bos_token="<s>", eos_token="</s>",
                                    add_generation_prompt=options["add_generation_prompt"], **options.get("kwargs", {}))[0][0]


def attempt(function):
    try:
        return {"expected": function()}
    except Exception as error:  # whatever Python raised: the C++ must refuse too
        return {"error": f"{type(error).__name__}: {error}"[:120]}


def main():
    cases = []
    for path in sorted(OUT.glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        for name, messages in CONVERSATIONS.items():
            for index, options in enumerate(OPTIONS):
                if name not in ("one turn", "system", "one tool call", "two tool calls", "nobody") and index > 0:
                    continue
                result = attempt(lambda: render(template, messages, options))
                cases.append({"template": path.name, "conversation": name, "options": index, **result})
    snippets = [{"source": s, **attempt(lambda: hf._compile_jinja_template(s).render(**VARIABLES))} for s in SNIPPETS + LAYOUTS]
    golden = {"now": NOW, "tools": TOOLS, "options": OPTIONS, "conversations": CONVERSATIONS, "cases": cases,
              "variables": VARIABLES, "snippets": snippets}
    with open(OUT / "golden.json", "w", encoding="utf-8") as out:
        json.dump(golden, out, ensure_ascii=False, indent=0, sort_keys=False)
        out.write("\n")
    errors = sum("error" in case for case in cases), sum("error" in case for case in snippets)
    print(f"{len(cases)} renderings ({errors[0]} refused), {len(snippets)} snippets ({errors[1]} refused)")


main()
