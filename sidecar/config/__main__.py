"""Write the JSON Schema of the configuration file."""

import json

from sidecar.config import json_schema

print(json.dumps(json_schema(), indent=2))
