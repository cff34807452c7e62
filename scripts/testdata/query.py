"""Evaluates queries by the library that the Azure CLI uses: a line is a query and a value, and the answer is a line."""
import json
import sys

import jmespath

for line in sys.stdin:
    query, value = json.loads(line)
    print(json.dumps(jmespath.search(query, value)), flush=True)
