"""Write the JSON Schema of the configuration file, or with `reference` the page for people."""

import json
import sys

from sidecar.config import json_schema
from sidecar.config.reference import reference

print(reference(json_schema()) if sys.argv[1:] == ["reference"] else json.dumps(json_schema(), indent=2))
