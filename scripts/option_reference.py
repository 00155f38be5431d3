"""Write the reference of all options: docs/options.md, docs/losses.md, the JSON schema for editors, the list of keys.

    python scripts/option_reference.py           # all of them
    python scripts/option_reference.py --keys    # only schemas/options-keys.json, at a release

The list of keys is what the last release accepted; a test compares the present keys with it, so that no option
disappears without an entry in `traiNNer/config/renames.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from traiNNer.config.reference import json_schema, losses_page, option_keys, reference_page  # noqa: E402


def main() -> None:
    """Write the files and say so."""
    parser = argparse.ArgumentParser(description="Write the reference of all options.")
    parser.add_argument("--keys", action="store_true", help="only the list of keys, at a release. Example: --keys")
    found = parser.parse_args()
    files = {ROOT / "schemas" / "options-keys.json": json.dumps(option_keys(), indent=1)}
    if not found.keys:
        files[ROOT / "schemas" / "options.schema.json"] = json.dumps(json_schema(), indent=1)
        files[ROOT / "docs" / "options.md"] = reference_page()
        files[ROOT / "docs" / "losses.md"] = losses_page()
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text.rstrip()}\n", encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
