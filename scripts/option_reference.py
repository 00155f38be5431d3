"""Write the reference of all options: docs/options.md, docs/losses.md, the JSON schema for editors, the list of keys.

    python scripts/option_reference.py            # pages and schema
    python scripts/option_reference.py --check    # whether the pages are current
    python scripts/option_reference.py --keys     # the list of keys, schemas/options-keys.json, at a release

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


def main() -> int:
    """Write the files and say so, or compare them."""
    parser = argparse.ArgumentParser(description="Write the reference of all options.")
    parser.add_argument("--keys", action="store_true", help="only the list of keys, at a release. Example: --keys")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; 1 if a page is not current. Example: --check"
    )
    found = parser.parse_args()
    pages = {ROOT / "docs" / "options.md": reference_page, ROOT / "docs" / "losses.md": losses_page}
    if found.check:
        stale = [path for path, text in pages.items() if path.read_text(encoding="utf-8") != _ended(text())]
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not current: run python scripts/option_reference.py")
        return 1 if stale else 0
    files = {ROOT / "schemas" / "options-keys.json": json.dumps(option_keys(), indent=1)} if found.keys else {}
    if not found.keys:
        files[ROOT / "schemas" / "options.schema.json"] = json.dumps(json_schema(), indent=1)
        files |= {path: text() for path, text in pages.items()}
    for path, text in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(_ended(text), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def _ended(text: str) -> str:
    return f"{text.rstrip()}\n"


if __name__ == "__main__":
    sys.exit(main())
