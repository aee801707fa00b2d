"""Reads metrics from standard input with the parser of Prometheus' own client, and prints them as JSON:
{name: [type, [[labels, value], ...]]}."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    series = [[sample.labels, sample.value] for sample in family.samples]
    families[family.name] = [family.type, series]
json.dump(families, sys.stdout)
