#!/usr/bin/env python
"""Django's command line for the coordinator. What an operator can mend ends in a sentence and an exit code of agent/errors.py."""

import os
import sys

from django.core.exceptions import ImproperlyConfigured
from django.core.management import execute_from_command_line
from django.db.utils import OperationalError, ProgrammingError

from agent.errors import ConfigError, HiveError, StorageError


def main() -> int:
    """Run the command of `sys.argv`; returns the exit code."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "coordinator.settings")
    try:
        execute_from_command_line(sys.argv)
    except HiveError as e:
        return _said(str(e), e.exit_code)
    except ImproperlyConfigured as e:
        return _said(str(e), ConfigError.exit_code)
    except (OperationalError, ProgrammingError) as e:
        first = str(e).strip().partition("\n")[0]
        hint = "Make its tables with: manage.py migrate" if _lacks_tables(first) else "Check HIVE_STATE_DIR or DATABASE_URL"
        return _said(f"the database cannot be used: {first}. {hint}.", StorageError.exit_code)
    return 0


def _lacks_tables(problem: str) -> bool:
    return "no such table" in problem or "does not exist" in problem


def _said(sentence: str, code: int) -> int:
    print(f"manage.py: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
